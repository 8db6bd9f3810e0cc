"""What came of an import: counts, and what was skipped and why, for people and for programs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from jclip.console import facts, text
from jclip.data.importing.survey import Skipped
from jclip.plain import shown


@dataclass
class Split:
    """What a split holds in the end, and what its source held.

    Attributes:
      records, units, shards, languages: that were written.
      skipped: units that were not.
      found: number of the source's entries (files, members, rows, pairs) in this split; each is in a record, in
        `skipped`, or in `beside`.
      moved: units that were found in this split and are now in another, as --validation moves them; negative where
        they came to.
      beside: entries that are no data, by reason.
      remarks: records that were written and are odd, by what is odd.
    """

    records: int = 0
    units: int = 0
    shards: int = 0
    found: int = 0
    moved: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)
    beside: Skipped = field(default_factory=Skipped)
    remarks: Skipped = field(default_factory=Skipped)


@dataclass
class Report:
    """Of a whole import.

    Attributes:
      format, kind: of what was read.
      splits: by name.
      left_out: splits and files that the source has and that were not imported, each with the reason.
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
                    "found": split.found,
                    "moved": split.moved,
                    "read": split.units + split.skipped.units + split.moved,
                    "skipped": _by_reason(split.skipped),
                    "beside": _by_reason(split.beside),
                    "remarks": _by_reason(split.remarks),
                }
                for name, split in self.splits.items()
            },
            "left_out": self.left_out,
            "read_as": list(self.read_as),
        }

    def table(self, title: str) -> Table:
        """For a terminal."""
        units = _UNITS[self.kind]
        table = facts(title)
        for name, split in self.splits.items():
            table.add_section()
            kept = f"{split.units:,} {units}"
            if split.records != split.units:
                kept += f" of {split.records:,} pictures"
            table.add_row(text(name), f"{kept}, {split.shards} shard(s)")
            known = {language: count for language, count in sorted(split.languages.items()) if language}
            if known:
                spoken = ", ".join(f"{shown(language)} {count:,}" for language, count in known.items())
                table.add_row("  languages", text(spoken, longest=None))
            for what, style, some in (
                ("skipped", "yellow", split.skipped),
                ("not read", "", split.beside),
                ("look at", "yellow", split.remarks),
            ):
                for reason, count in sorted(some.counts.items()):
                    places = some.places[reason]
                    more = ", …" if count > len(places) else ""
                    told = f"{shown(reason)}: {'; '.join(map(shown, places))}{more}"
                    table.add_row(Text.assemble((f"  {what}", style), f" {count:,}"), text(told, longest=None))
        if self.read_as:
            table.add_section()
            for number, line in enumerate(self.read_as):
                table.add_row("" if number else "read as", text(line, longest=None))
        for name, reason in self.left_out.items():
            table.add_section()
            table.add_row(text(name), Text.assemble(("left out", "yellow"), f": {shown(reason, None)}"))
        return table


def _by_reason(some: Skipped) -> dict[str, Any]:
    return {reason: {"count": count, "first": some.places[reason]} for reason, count in sorted(some.counts.items())}


_UNITS = {"pairs": "pairs", "parallel": "translations", "labelled": "pictures"}
