"""A report's words and tables as Markdown: for places that show no HTML. Curves and pictures stay on the page."""

import re
from collections.abc import Iterator

from jclip.evaluate.report.parts import Matrix, Report, Row, Table, around_cells, cells, percent
from jclip.plain import shown

_MOST = 20  # classes of a matrix that is written out


def markdown(report: Report) -> str:
    """The report as one Markdown document.

    Raises:
      ValueError: a row of a table does not have one figure for each column.
    """
    parts = [f"# {_plain(report.title)}", *_paragraphs(report.intro)]
    parts += [f"- {_plain(name)}: {_plain(value)}" for name, value in report.facts]
    for section in report.sections:
        written = list(_paragraphs(section.text))
        for item in section.items:
            if isinstance(item, Table):
                written.append("\n".join(_table(item)))
            elif isinstance(item, Matrix) and len(item.names) <= _MOST:
                written.append("\n".join(_matrix(item)))
        if any(written):
            parts += [f"## {_plain(section.title)}", *written]
    return "\n\n".join([*parts, *_paragraphs(report.footer)]) + "\n"


def _table(table: Table) -> Iterator[str]:
    yield f"**{_plain(table.title)}** (%)\n"
    yield _line(["", *map(_plain, table.columns)])
    yield _line(["---", *["---:"] * len(table.columns)])
    for group in table.groups:
        yield _line([f"**{_plain(group.name)}**", *[""] * len(table.columns)])
        for row in group.rows:
            yield _line([_plain(row.label), *_cells(row, table)])
        for row in group.references:
            yield _line([f"*{_plain(row.label)}*", *_cells(row, table)])
    if table.note:
        yield f"\n{_plain(table.note)}"


def _paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs of a text, which blank lines separate; nothing in them begins a list or a heading."""
    for part in text.split("\n\n"):
        if plain := _plain(" ".join(part.split())):
            yield re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", plain)


def _cells(row: Row, table: Table) -> Iterator[str]:
    for (value, before), around in zip(cells(row, table), around_cells(row, table), strict=True):
        start = "" if before is None else f"{percent(before)} → "
        yield f"{start}{percent(value)}{f' ({around})' if around else ''}"


def _matrix(matrix: Matrix) -> Iterator[str]:
    yield f"**{_plain(matrix.title)}**\n"
    yield _line(["", *map(_plain, matrix.names)])
    yield _line(["---", *["---:"] * len(matrix.names)])
    for name, counts in zip(matrix.names, matrix.counts, strict=True):
        yield _line([_plain(name), *map(str, counts)])


def _line(parts: list[str]) -> str:
    return f"| {' | '.join(parts)} |"


def _plain(text: str) -> str:
    """Returns text on one line, in which nothing is a mark of Markdown or HTML, or the border of a cell."""
    return re.sub(r"([\\|*_`<>\[\]#&~$])", r"\\\1", shown(text, None))
