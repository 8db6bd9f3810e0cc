"""A report's tables for a terminal, by rich: no lines but the words, and as wide as the terminal is, 80 columns too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from jclip.evaluate.report.parts import Group, Interval, Row, Table, between, cells, change, percent
from jclip.plain import shown

if TYPE_CHECKING:
    import rich.console
    import rich.text

_SHORT = 6  # letters; longer names of figures take two lines
_MARGIN = 2


@dataclass(frozen=True)
class _Line:
    """A row: its label, and a text for each column."""

    label: str
    texts: Sequence[str]
    style: str = ""


class TerminalTable:
    """What rich prints. The headline figure has its 95 % interval beside it; the others have theirs on the page.

    Args:
      table: what is shown.

    Raises:
      ValueError: a row of it does not have one figure for each column.
    """

    def __init__(self, table: Table):
        self._table = table = _shown(table)
        bounded = [i for i, _ in enumerate(table.columns) if any(_has_interval(row, i) for row in _rows(table))]
        # Without an interval of its own the headline is not the best place, but any other is better than none.
        self._main = table.main if table.main in bounded or not bounded else bounded[0]
        self._bounded = bool(bounded)
        self._groups = [
            (group.name, [line for row in group.rows for line in self._lines(row)]) for group in table.groups
        ]
        for (_, lines), group in zip(self._groups, table.groups, strict=True):
            lines += self._references(group)
        arrows = not table.stacked and any(row.before is not None for row in _rows(table))
        self._gap = 2 if arrows else 1  # "1.0 → 2.0 3.0 → 4.0" would be hard to read
        every = [self._names(0), self._names(1), *(line.texts for _, lines in self._groups for line in lines)]
        self._widths = [max(map(_width, column)) for column in zip(*every, strict=True)]

    def _lines(self, row: Row) -> Iterator[_Line]:
        found = cells(row, self._table)
        intervals = list(row.intervals or [None] * len(found))
        if not self._table.stacked or row.before is None:
            texts = [percent(v) if before is None else f"{percent(before)} → {percent(v)}" for v, before in found]
            yield _Line(row.label, self._with(texts, intervals))
            return
        changes = list(row.changes or [None] * len(found))
        yield _Line(row.label, [""] * len(self._names(0)))
        yield _Line("  A", self._with([percent(before) for _, before in found], [None] * len(found)))
        yield _Line("  B", self._with([percent(value) for value, _ in found], intervals))
        apart = ["–" if value is None or before is None else change(value - before) for value, before in found]
        yield _Line("  B − A", self._with(apart, changes, signed=True), "bold")

    def _references(self, group: Group) -> Iterator[_Line]:
        for row in group.references:
            values = [percent(value) for value, _ in cells(row, self._table)]
            yield _Line(row.label, self._with(values, [None] * len(values)), "dim")

    def _with(self, texts: list[str], intervals: Sequence[Interval | None], signed: bool = False) -> list[str]:
        """The texts, and the headline's interval after it."""
        if not self._bounded:
            return texts
        around = intervals[self._main]
        shown = "" if around is None else between(around, signed=signed)
        return [*texts[: self._main + 1], shown, *texts[self._main + 1 :]]

    def _names(self, line: int) -> list[str]:
        """The names of the columns, which stand in two lines: "T→I R@5" has "R@5" in the second."""
        parted = [name.partition(" ") if len(name) > _SHORT else ("", "", name) for name in self._table.columns]
        upper = [first if last else "" for first, _, last in parted]
        upper = upper[:1] + ["" if one == before else one for before, one in pairwise(upper)]
        lower = [last or first for first, _, last in parted]
        if not self._bounded:
            return lower if line else upper
        here = self._main + 1
        return [*lower[:here], "interval", *lower[here:]] if line else [*upper[:here], "95 %", *upper[here:]]

    def __rich_console__(
        self, console: "rich.console.Console", options: "rich.console.ConsoleOptions"
    ) -> Iterator["rich.text.Text"]:
        from rich.text import Text

        yield Text(self._table.title, "bold")
        figures = sum(width + self._gap + (i in self._starts()) for i, width in enumerate(self._widths))
        room = max(options.max_width - _MARGIN - figures, 8)
        labels = [_width(line.label) for _, lines in self._groups for line in lines]
        label = min(room, max(labels, default=0))
        for number, (name, lines) in enumerate(self._groups):
            yield Text()
            if number == 0:
                for line in (0, 1):
                    if any(self._names(line)):
                        yield self._text(_Line("", self._names(line), "dim"), label)
            yield Text(name, "bold")
            for one in lines:
                if _width(one.label) > label:
                    yield Text(" " * _MARGIN + one.label, one.style)
                    one = _Line("", one.texts, one.style)
                yield self._text(one, label)
        if self._table.note:
            yield Text()
            yield Text(self._table.note, "dim")
        yield Text()

    def _starts(self) -> list[int]:
        """The columns before which the eye wants more room: the first, where a new name stands above, and after the
        interval.
        """
        after = self._main + 2 if self._bounded else 0
        return [i for i, name in enumerate(self._names(0)) if name or i in (0, after)]

    def _text(self, line: _Line, label: int) -> "rich.text.Text":
        from rich.text import Text

        text = Text(" " * _MARGIN + line.label + " " * (label - _width(line.label)), line.style)
        for i, (word, width) in enumerate(zip(line.texts, self._widths, strict=True)):
            text.append(" " * (self._gap + (i in self._starts()) + width - _width(word)))
            beside = self._bounded and i == self._main + 1
            text.append(word, "dim" if beside else "bold" if i == self._main and not line.style else "")
        text.rstrip()
        return text


def _shown(table: Table) -> Table:
    """Returns the table with all its words safe to print, before their widths are taken."""

    def rows(some: Sequence[Row]) -> list[Row]:
        return [replace(row, label=shown(row.label)) for row in some]

    groups = [
        replace(group, name=shown(group.name), rows=rows(group.rows), references=rows(group.references))
        for group in table.groups
    ]
    return replace(
        table,
        title=shown(table.title, None),
        columns=[shown(name) for name in table.columns],
        groups=groups,
        note=shown(table.note, None),
    )


def _rows(table: Table) -> list[Row]:
    return [row for group in table.groups for row in group.rows]


def _has_interval(row: Row, column: int) -> bool:
    return any(some is not None and some[column] is not None for some in (row.intervals, row.changes))


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
