"""What a run has to show, as plain data, and the page that shows it: one HTML file that needs nothing beside it.

    page = Report("jclip demo", "What was trained, and on what.", sections=(Section("Results", items=(table,)),))
    write(page, Path("report.html"))

Pictures are embedded, curves are inline SVG, nothing is fetched. All text is escaped, may be in any script, and finds
its own direction. `terminal` shows the same tables in a terminal.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from jclip.evaluate._html import html
from jclip.evaluate._markdown import markdown
from jclip.evaluate.chart import Chart, Curve
from jclip.evaluate.parts import (
    Credit,
    Fraction,
    Gallery,
    Group,
    Matrix,
    Query,
    Report,
    Result,
    Row,
    Section,
    Table,
    cells,
    percent,
)

if TYPE_CHECKING:
    import rich.table

__all__ = [
    "Chart", "Credit", "Curve", "Gallery", "Group", "Matrix", "Query", "Report", "Result", "Row", "Section", "Table",
    "html", "markdown", "terminal", "write",
]  # fmt: skip


def write(report: Report, path: Path) -> None:
    """Writes the page in one step: a reader, or a crash, never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(html(report), encoding="utf-8")
    unfinished.replace(path)


def terminal(table: Table) -> "rich.table.Table":
    """The table for a terminal, by rich: "before → after" in each cell, chance and baselines under each group."""
    from rich.markup import escape as plain
    from rich.table import Table as RichTable

    shown = RichTable(title=plain(table.title), caption=plain(table.note) or None, title_justify="left")
    shown.add_column("")
    for column in table.columns:
        shown.add_column(plain(column), justify="right", no_wrap=True)
    for group in table.groups:
        shown.add_row(f"[bold]{plain(group.name)}[/bold]")
        for row in group.rows:
            shown.add_row(f"  {plain(row.label)}", *(_terminal_cell(*cell) for cell in cells(row, table)))
        for row in group.references:
            figures = [f"[dim]{percent(value)}[/dim]" for value, _ in cells(row, table)]
            shown.add_row(f"  [dim]{plain(row.label)}[/dim]", *figures)
        shown.add_section()
    return shown


def _terminal_cell(value: Fraction, before: Fraction) -> str:
    start = "" if before is None else f"[dim]{percent(before)} →[/dim] "
    return f"{start}[bold]{percent(value)}[/bold]"
