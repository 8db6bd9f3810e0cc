"""A report's words and tables as Markdown: for places that show no HTML. Curves and pictures stay on the page."""

from collections.abc import Iterator

from jclip.evaluate.parts import Matrix, Report, Row, Table, around_cells, cells, percent

_MOST = 20  # classes of a matrix that is written out


def markdown(report: Report) -> str:
    """The report as one Markdown document.

    Raises:
      ValueError: a row of a table does not have one figure for each column.
    """
    parts = [f"# {_plain(report.title)}", report.intro]
    parts += [f"- {_plain(name)}: {_plain(value)}" for name, value in report.facts]
    for section in report.sections:
        written = [section.text]
        for item in section.items:
            if isinstance(item, Table):
                written.append("\n".join(_table(item)))
            elif isinstance(item, Matrix) and len(item.names) <= _MOST:
                written.append("\n".join(_matrix(item)))
        if any(written):
            parts += [f"## {_plain(section.title)}", *written]
    return "\n\n".join(part for part in [*parts, report.footer] if part) + "\n"


def _table(table: Table) -> Iterator[str]:
    yield f"**{_plain(table.title)}** (%)\n"
    yield _line(["", *table.columns])
    yield _line(["---", *["---:"] * len(table.columns)])
    for group in table.groups:
        yield _line([f"**{_plain(group.name)}**", *[""] * len(table.columns)])
        for row in group.rows:
            yield _line([_plain(row.label), *_cells(row, table)])
        for row in group.references:
            yield _line([f"*{_plain(row.label)}*", *_cells(row, table)])
    if table.note:
        yield f"\n{table.note}"


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
    """Text in which nothing is taken for a mark of Markdown's own, or for the border of a cell."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]#" else sign for sign in text.replace("\n", " "))
