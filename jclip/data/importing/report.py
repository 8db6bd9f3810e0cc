"""What came of an import: counts, and what was skipped and why, for people and for programs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from jclip.data.importing.survey import Skipped


@dataclass
class Split:
    """What a split holds in the end."""

    records: int = 0
    units: int = 0
    shards: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)


@dataclass
class Report:
    """Of a whole import.

    Attributes:
      format, kind: of what was read.
      splits: by name.
      left_out: splits that the source has and that were not imported, each with the reason.
      read_as: how the source was read, in words.
    """

    format: str
    kind: str
    splits: dict[str, Split] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    read_as: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values. It holds no times and no paths: the same source gives the same bytes."""
        return {
            "format": self.format,
            "kind": self.kind,
            "splits": {
                name: {
                    "records": split.records,
                    _UNITS[self.kind]: split.units,
                    "shards": split.shards,
                    "languages": dict(sorted(split.languages.items())),
                    "read": split.units + split.skipped.units,
                    "skipped": {
                        reason: {"count": count, "first": split.skipped.places[reason]}
                        for reason, count in sorted(split.skipped.counts.items())
                    },
                }
                for name, split in self.splits.items()
            },
            "left_out": self.left_out,
            "read_as": list(self.read_as),
        }

    def table(self, title: str) -> Table:
        """For a terminal."""
        units = _UNITS[self.kind]
        table = Table(title=title, title_justify="left", show_header=False)
        for name, split in self.splits.items():
            table.add_section()
            kept = f"{split.units:,} {units}"
            if split.records != split.units:
                kept += f" of {split.records:,} pictures"
            table.add_row(escape(name), f"{kept}, {split.shards} shard(s)")
            known = {language: count for language, count in sorted(split.languages.items()) if language}
            if known:
                table.add_row("  languages", ", ".join(f"{language} {count:,}" for language, count in known.items()))
            for reason, count in sorted(split.skipped.counts.items()):
                places = split.skipped.places[reason]
                more = ", …" if count > len(places) else ""
                table.add_row(f"  [yellow]skipped[/] {count:,}", f"{escape(reason)}: {escape('; '.join(places))}{more}")
        if self.read_as:
            table.add_section()
            table.add_row("read as", escape("\n".join(self.read_as)))
        for name, reason in self.left_out.items():
            table.add_section()
            table.add_row(escape(name), f"[yellow]left out[/]: {escape(reason)}")
        return table


_UNITS = {"pairs": "pairs", "parallel": "translations", "labelled": "pictures"}
