"""Renders reports: one HTML page that needs no other file, or Markdown.

    page = Report("jclip demo", "An introduction.", sections=[Section("Results", items=[table])])
    write(page, Path("report.html"))

The page embeds its images and charts and loads nothing. All text is escaped.
"""

import base64
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jclip.evaluate.report.elements import Matrix, Report, Row, Table, paragraphs, percent
from jclip.evaluate.report.plots import svg
from jclip.plain import as_html, shown

if TYPE_CHECKING:
    import jinja2

_LARGEST_MATRIX = 20  # classes of a matrix in Markdown


def write(report: Report, path: Path) -> None:
    """Writes the HTML page; an older one is replaced only when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(html(report), encoding="utf-8")
    unfinished.replace(path)


def html(report: Report) -> str:
    """Returns the report as an HTML document."""
    return _template().render(report=report)


@cache
def _template() -> "jinja2.Template":
    import jinja2
    from markupsafe import Markup

    def escape(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(as_html(value))

    loader = jinja2.PackageLoader("jclip.evaluate.report", ".")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        finalize=escape,  # control characters too
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
        "groups_of_charts": lambda items: groupby(items, lambda item: type(item).__name__),
        "nth": lambda values, index: values[index],
        "paragraphs": paragraphs,
        "percent": percent,
        "reference_labels": _reference_labels,
        "svg": lambda chart: Markup(svg(chart)),
        "width": lambda value: f"{100 * min(max(value, 0.0), 1.0):.2f}%",
    }
    environment.tests["finite"] = lambda value: value is not None and math.isfinite(value)
    style, *_ = loader.get_source(environment, "page.css")
    environment.globals["style"] = Markup(style)
    return environment.get_template("page.html.j2")


def _reference_labels(table: Table) -> list[tuple[int, str]]:
    """Returns (index of the colour, label) of each different reference row."""
    labels = ((i, row.label) for group in table.groups for i, row in enumerate(group.references))
    return list(dict.fromkeys(labels))


def markdown(report: Report) -> str:
    """Returns text and tables as Markdown. Charts and galleries are on the HTML page only."""
    parts = [f"# {_plain(report.title)}", *_paragraphs(report.intro)]
    parts += [f"- {_plain(name)}: {_plain(value)}" for name, value in report.facts]
    for section in report.sections:
        written = list(_paragraphs(section.text))
        for item in section.items:
            if isinstance(item, Table):
                written.append("\n".join(_table(item)))
            elif isinstance(item, Matrix) and len(item.names) <= _LARGEST_MATRIX:
                written.append("\n".join(_matrix(item)))
        if written:
            parts += [f"## {_plain(section.title)}", *written]
    return "\n\n".join([*parts, *_paragraphs(report.footer)]) + "\n"


def _table(table: Table) -> Iterator[str]:
    def line(label: str, row: Row) -> str:
        cells = (f"{cell.arrow}{f' ({cell.around})' if cell.around else ''}" for cell in table.cells(row))
        return _line([label, *cells])

    yield f"**{_plain(table.title)}** (%)\n"
    yield from _head(table.columns)
    for group in table.groups:
        yield _line([f"**{_plain(group.name)}**", *[""] * len(table.columns)])
        yield from (line(_plain(row.label), row) for row in group.rows)
        yield from (line(f"*{_plain(row.label)}*", row) for row in group.references)
    if table.note:
        yield f"\n{_plain(table.note)}"


def _matrix(matrix: Matrix) -> Iterator[str]:
    yield f"**{_plain(matrix.title)}**\n"
    yield from _head(matrix.names)
    for name, counts in zip(matrix.names, matrix.counts, strict=True):
        yield _line([_plain(name), *map(str, counts)])


def _head(columns: Sequence[str]) -> Iterator[str]:
    yield _line(["", *map(_plain, columns)])
    yield _line(["---", *["---:"] * len(columns)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _paragraphs(text: str) -> Iterator[str]:
    """Yields a text's paragraphs, none of which begins a list or a heading."""
    for part in paragraphs(text):
        yield re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", _plain(" ".join(part.split())))


def _plain(text: str) -> str:
    """Returns text on one line, with the marks of Markdown and HTML escaped."""
    return re.sub(r"([\\|*_`<>\[\]#&~$])", r"\\\1", shown(text, None))
