"""Shows a report's tables on a terminal with rich; they fit into 80 columns."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jclip.evaluate.report.elements import Cell, Group, Table, between, percent
from jclip.plain import shown

if TYPE_CHECKING:
    import rich.console
    import rich.table

_LONGEST_NAME = 6  # longer names of figures take two lines
_MARGIN = 2
_Line = tuple[str, list[str], str]  # label, a text for each column, style


class TerminalTable:
    """Renderable for rich's console. Shows the 95 % interval of the headline figure only; the page has all."""

    def __init__(self, table: Table):
        self._table = table
        columns = [[table.cells(row)[i] for row in table.all_rows()] for i in range(len(table.columns))]
        bounded = [i for i, cells in enumerate(columns) if any(cell.interval or cell.change for cell in cells)]
        # Without an interval of the headline, the first figure that has one takes its place.
        self._main = table.main if table.main in bounded or not bounded else bounded[0]
        self._bounded = bool(bounded)

    def __rich_console__(
        self, console: "rich.console.Console", options: "rich.console.ConsoleOptions"
    ) -> Iterator["rich.console.RenderableType"]:
        from rich.text import Text

        heads = self._heads()
        groups = [(group.name, list(self._lines(group))) for group in self._table.groups]
        lines = [*heads, *(line for _, some in groups for line in some)]
        widths = [max(map(_width, column)) for column in zip(*(texts for _, texts, _ in lines), strict=True)]
        # More space before the first figure, before a new upper name, and after the interval.
        after = self._main + 2 if self._bounded else 0
        arrows = not self._table.stacked and any(row.before is not None for row in self._table.all_rows())
        gaps = [1 + arrows + (bool(name) or i in (0, after)) for i, name in enumerate(heads[0][1])]
        label = max((_width(name) for name, _, _ in lines), default=0)
        label = min(label, max(8, options.max_width - _MARGIN - sum(widths) - sum(gaps)))
        yield Text(shown(self._table.title, None), "bold")
        for number, (name, some) in enumerate(groups):
            yield Text()
            if number == 0:
                yield self._grid([head for head in heads if any(head[1])], label, widths, gaps)
            yield Text(shown(name), "bold")
            yield self._grid(some, label, widths, gaps)
        if self._table.note:
            yield Text(f"\n{shown(self._table.note, None)}", "dim")
        yield Text()

    def _grid(
        self, lines: Sequence[_Line], label: int, widths: Sequence[int], gaps: Sequence[int]
    ) -> "rich.table.Table":
        """Returns some lines as a grid; all grids of a table have the same columns."""
        from rich.padding import Padding
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid.grid()
        grid.add_column(width=_MARGIN + label)
        for width, gap in zip(widths, gaps, strict=True):
            grid.add_column(width=width + gap, justify="right", no_wrap=True)
        styles = {self._main: "bold"} | ({self._main + 1: "dim"} if self._bounded else {})
        for name, texts, style in lines:
            cells = [Text(text, style or styles.get(i, "")) for i, text in enumerate(texts)]
            grid.add_row(Padding(Text(name, style), (0, 0, 0, _MARGIN)), *cells)
        return grid

    def _heads(self) -> list[_Line]:
        """Returns the two lines of column names: "T→I R@5" has "R@5" in the second."""
        names = map(shown, self._table.columns)
        parted = [name.partition(" ") if len(name) > _LONGEST_NAME else ("", "", name) for name in names]
        upper = [first if last else "" for first, _, last in parted]
        upper = [name if i == 0 or name != upper[i - 1] else "" for i, name in enumerate(upper)]
        lower = [last or first for first, _, last in parted]
        return [("", self._with(upper, "95 %"), "dim"), ("", self._with(lower, "interval"), "dim")]

    def _lines(self, group: Group) -> Iterator[_Line]:
        for row in group.rows:
            cells, name = self._table.cells(row), shown(row.label)
            if not self._table.stacked or row.before is None:
                yield name, self._with([cell.arrow for cell in cells], self._around(cells)), ""
                continue
            yield name, self._with([""] * len(cells)), ""
            yield "  A", self._with([percent(cell.before) for cell in cells]), ""
            yield "  B", self._with([percent(cell.value) for cell in cells], self._around(cells)), ""
            yield "  B − A", self._with([cell.difference for cell in cells], self._around(cells, changes=True)), "bold"
        for row in group.references:
            yield shown(row.label), self._with([percent(value) for value in row.values]), "dim"

    def _around(self, cells: Sequence[Cell], *, changes: bool = False) -> str:
        cell = cells[self._main]
        interval = cell.change if changes else cell.interval
        return between(interval, signed=changes) if interval else ""

    def _with(self, texts: list[str], interval: str = "") -> list[str]:
        """Returns the texts with an interval after the headline's, if the table has intervals."""
        return [*texts[: self._main + 1], interval, *texts[self._main + 1 :]] if self._bounded else texts


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
