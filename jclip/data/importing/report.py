"""What came of an import: counts, and what was skipped and why, for people and for programs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from jclip.data.importing.survey import Skipped


@dataclass
class Split:
    """What a split holds in the end, and what its source held.

    Attributes:
      records, units, shards, languages: that were written.
      skipped: units that were not.
      found: number of the source's entries (files, members, rows, pairs); each is in a record, in `skipped`, or in
        `beside`.
      beside: entries that are no data, by reason.
    """

    records: int = 0
    units: int = 0
    shards: int = 0
    found: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)
    beside: Skipped = field(default_factory=Skipped)


@dataclass
class Report:
    """Of a whole import.

    Attributes:
      format, kind: of what was read.
      splits: by name.
      left_out: splits and files that the source has and that were not imported, each with the reason.
    """

    format: str
    kind: str
    splits: dict[str, Split] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

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
                    "found": split.found,
                    "read": split.units + split.skipped.units,
                    "skipped": _by_reason(split.skipped),
                    "beside": _by_reason(split.beside),
                }
                for name, split in self.splits.items()
            },
            "left_out": self.left_out,
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
            for what, some in (("[yellow]skipped[/]", split.skipped), ("not read", split.beside)):
                for reason, count in sorted(some.counts.items()):
                    places = some.places[reason]
                    more = ", …" if count > len(places) else ""
                    table.add_row(f"  {what} {count:,}", f"{escape(reason)}: {escape('; '.join(places))}{more}")
        for name, reason in self.left_out.items():
            table.add_section()
            table.add_row(escape(name), f"[yellow]left out[/]: {escape(reason)}")
        return table


def _by_reason(some: Skipped) -> dict[str, Any]:
    return {reason: {"count": count, "first": some.places[reason]} for reason, count in sorted(some.counts.items())}


_UNITS = {"pairs": "pairs", "parallel": "translations", "labelled": "pictures"}
