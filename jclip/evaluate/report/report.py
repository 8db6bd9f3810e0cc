"""What a run has to show, as plain data, and the page that shows it: one HTML file that needs nothing beside it.

    page = Report("jclip demo", "What was trained, and on what.", sections=(Section("Results", items=(table,)),))
    write(page, Path("report.html"))

Pictures are embedded, curves are inline SVG, nothing is fetched. All text is escaped, may be in any script, and finds
its own direction. `terminal` shows the same tables in a terminal.
"""

from pathlib import Path

from jclip.evaluate.report._html import html
from jclip.evaluate.report._markdown import markdown
from jclip.evaluate.report._terminal import TerminalTable
from jclip.evaluate.report.chart import Chart, Curve
from jclip.evaluate.report.parts import Credit, Gallery, Group, Matrix, Query, Report, Result, Row, Section, Table

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


def terminal(table: Table) -> TerminalTable:
    """The table for a terminal, by rich: "before → after" in each cell, chance and baselines under each group."""
    return TerminalTable(table)
