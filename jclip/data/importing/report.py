"""Report of an import: counts, skipped entries and reasons, for terminals and as JSON."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from jclip.console import facts, text
from jclip.data.importing.survey import Skipped
from jclip.plain import shown


@dataclass
class SplitReport:
    """Counts of a split.

    Attributes:
      records, units, shards, languages: numbers of what was written.
      skipped: units that were skipped.
      found: number of the source's entries (files, members, rows, pairs). Each is in a record, `skipped`, or `beside`.
      moved: units that --validation moved from this split to another; negative for units that it moved here.
      beside: entries that are not data, by reason.
      remarks: records that were written but are odd, by oddity.
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
class ImportReport:
    """Report of a whole import.

    Attributes:
      format, kind: format and record kind.
      splits: counts by split.
      left_out: splits and files that were not imported, each with the reason.
      read_as: description of how the source was read.
    """

    format: str
    kind: str
    splits: dict[str, SplitReport] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    read_as: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, without times and paths, so that the same source gives the same bytes."""
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
        """Returns a table for the terminal."""
        units = "images" if self.kind == "labelled" else _UNITS[self.kind]
        table = facts(title)
        for name, split in self.splits.items():
            table.add_section()
            kept = f"{split.units:,} {units}"
            if split.records != split.units:
                kept += f" of {split.records:,} images"
            table.add_row(text(name), f"{kept}, {split.shards} shard(s)")
            known = {language: count for language, count in sorted(split.languages.items()) if language}
            if known:
                spoken = ", ".join(f"{shown(language)} {count:,}" for language, count in known.items())
                table.add_row("  languages", text(spoken, longest=None))
            for what, style, some in (
                ("skipped", "yellow", split.skipped),
                ("not read", "", split.beside),
                ("odd", "yellow", split.remarks),
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
"""Key of the number of units in report.json, by record kind."""
