"""What a run has to show, as plain data, and the page that shows it: one HTML file that needs nothing beside it.

    page = Report("jclip demo", "What was trained, and on what.", sections=(Section("Results", items=(table,)),))
    write(page, Path("report.html"))

Pictures are embedded, curves are inline SVG, nothing is fetched. All text is escaped, may be in any script, and finds
its own direction. `terminal` shows the same tables in a terminal.
"""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jclip.evaluate.chart import Chart, Curve, svg

if TYPE_CHECKING:
    import rich.table

__all__ = [
    "Chart", "Credit", "Curve", "Gallery", "Group", "Query", "Report", "Result", "Row", "Section", "Table",
    "html", "terminal", "write",
]  # fmt: skip

Fraction = float | None  # in [0, 1], shown as a percentage; None where there is nothing to say


@dataclass(frozen=True)
class Row:
    """One line of a table, such as a language.

    Attributes:
      label: what the line is about, in any script.
      values: one for each column.
      before: the same figures before the stage; shown beside them.
    """

    label: str
    values: Sequence[Fraction]
    before: Sequence[Fraction] | None = None


@dataclass(frozen=True)
class Group:
    """Rows that answer one question, such as a stage's languages on one task.

    Attributes:
      name: the question.
      rows: the answers.
      references: what they are to be read against, chance first, then baselines: ticks on every bar of the group.
    """

    name: str
    rows: Sequence[Row]
    references: Sequence[Row] = ()


@dataclass(frozen=True)
class Table:
    """Figures in groups. `columns` names the figures: ("R@1", "R@5", "R@10")."""

    title: str
    columns: Sequence[str]
    groups: Sequence[Group]
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A picture that was found: PNG bytes, whether it is a right answer, and what it shows."""

    png: bytes
    correct: bool
    name: str


@dataclass(frozen=True)
class Query:
    """A question in some language, and the pictures it finds, best first.

    Attributes:
      text: as it was asked.
      language: BCP 47, such as "zh" or "ar": the browser chooses glyphs by it.
      language_name: for people, such as "中文".
      results: best first.
      meaning: in the report's own language, for readers who cannot read the query.
      rank: of the best right answer among all candidates, from 1.
    """

    text: str
    language: str
    language_name: str
    results: Sequence[Result]
    meaning: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Queries with what they find, right and wrong."""

    title: str
    queries: Sequence[Query]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a few words (blank lines separate paragraphs), and what belongs under it."""

    title: str
    text: str = ""
    items: Sequence[Chart | Table | Gallery] = ()


@dataclass(frozen=True)
class Credit:
    """Whose pictures are shown, and by what right."""

    artist: str
    licence: str
    url: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
      title: of the page.
      intro: what was done (blank lines separate paragraphs).
      sections: in reading order.
      facts: short headline figures: ("trained in", "8 min 40 s").
      credits: licences of all pictures shown.
      footer: how the page was made, such as versions and the command.
    """

    title: str
    intro: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    credits: Sequence[Credit] = field(default=())
    footer: str = ""


def write(report: Report, path: Path) -> None:
    """Writes the page in one step: a reader, or a crash, never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(html(report), encoding="utf-8")
    unfinished.replace(path)


def html(report: Report) -> str:
    """The page as one HTML document.

    Raises:
      ValueError: a row of a table does not have one figure for each column.
    """
    style = files("jclip.evaluate").joinpath("report.css").read_text(encoding="utf-8")
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.title)}</title><style>{style}</style></head><body><main>",
            f'<header><h1 dir="auto">{escape(report.title)}</h1>{_paragraphs(report.intro)}',
            f"<dl>{facts}</dl></header>" if facts else "</header>",
            *(part for section in report.sections for part in _section(section)),
            *_credits(report.credits),
            f"<footer>{_paragraphs(report.footer)}</footer>" if report.footer else "",
            "</main></body></html>\n",
        ]
    )


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
            shown.add_row(f"  {plain(row.label)}", *(_terminal_cell(*cell) for cell in _cells(row, table)))
        for row in group.references:
            figures = [f"[dim]{_percent(value)}[/dim]" for value, _ in _cells(row, table)]
            shown.add_row(f"  [dim]{plain(row.label)}[/dim]", *figures)
        shown.add_section()
    return shown


def _terminal_cell(value: Fraction, before: Fraction) -> str:
    start = "" if before is None else f"[dim]{_percent(before)} →[/dim] "
    return f"{start}[bold]{_percent(value)}[/bold]"


def _section(section: Section) -> Iterator[str]:
    yield f'<section><h2 dir="auto">{escape(section.title)}</h2>{_paragraphs(section.text)}'
    charts: list[Chart] = []
    for item in [*section.items, None]:
        # Charts that follow one another share a row where there is room.
        if isinstance(item, Chart):
            charts.append(item)
            continue
        if charts:
            yield f'<div class="charts">{"".join(map(_chart, charts))}</div>'
            charts = []
        if isinstance(item, Table):
            yield _table(item)
        elif isinstance(item, Gallery):
            yield _gallery(item)
    yield "</section>"


def _chart(chart: Chart) -> str:
    legend = ""
    if len(chart.curves) > 1:
        entries = (f'<li class="s{i % 8}" dir="auto">{escape(c.name)}</li>' for i, c in enumerate(chart.curves))
        legend = f'<ul class="legend">{"".join(entries)}</ul>'
    note = f'<p class="note" dir="auto">{escape(chart.note)}</p>' if chart.note else ""
    return f'<figure><figcaption dir="auto">{escape(chart.title)}</figcaption>{legend}{svg(chart)}{note}</figure>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join(_group(group, table) for group in table.groups)
    keys = dict.fromkeys((i, row.label) for group in table.groups for i, row in enumerate(group.references))
    legend = "".join(f'<li class="r{i}" dir="auto">{escape(label)}</li>' for i, label in keys)
    if any(row.before for group in table.groups for row in group.rows):
        legend = f'<li class="before">before the stage</li>{legend}'
    return (
        f'<figure class="wide"><figcaption dir="auto">{escape(table.title)}</figcaption>'
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead>{body}</table></div>'
        + (f'<ul class="legend ticks"><li class="bar">0 to 100%</li>{legend}</ul>' if legend else "")
        + (f'<p class="note" dir="auto">{escape(table.note)}</p>' if table.note else "")
        + "</figure>"
    )


def _group(group: Group, table: Table) -> str:
    references = [[value for value, _ in _cells(row, table)] for row in group.references]
    columns = list(zip(*references, strict=True)) if references else [()] * len(table.columns)
    span = len(table.columns) + 1
    lines = [f'<tr class="group"><th scope="rowgroup" colspan="{span}" dir="auto">{escape(group.name)}</th></tr>']
    for row in group.rows:
        cells = "".join(_cell(*cell, ticks) for cell, ticks in zip(_cells(row, table), columns, strict=True))
        lines.append(f'<tr><th scope="row"><bdi>{escape(row.label)}</bdi></th>{cells}</tr>')
    for row in group.references:
        cells = "".join(f"<td>{_percent(value)}</td>" for value, _ in _cells(row, table))
        lines.append(f'<tr class="reference"><th scope="row"><bdi>{escape(row.label)}</bdi></th>{cells}</tr>')
    return f"<tbody>{''.join(lines)}</tbody>"


def _cell(value: Fraction, before: Fraction, ticks: Sequence[Fraction]) -> str:
    start = "" if before is None else f'<span class="before">{_percent(before)} →</span> '
    number = f"{start}<b>{_percent(value)}</b>"
    marks = [("before", before), *((f"r{i}", tick) for i, tick in enumerate(ticks))]
    drawn = "".join(f'<i class="{kind}" style="left:{_width(at)}"></i>' for kind, at in marks if _finite(at))
    filled = f'<i class="fill" style="width:{_width(value)}"></i>' if _finite(value) else ""
    return f'<td>{number}<span class="track" aria-hidden="true">{filled}{drawn}</span></td>'


def _gallery(gallery: Gallery) -> str:
    queries = "".join(_query(query) for query in gallery.queries)
    note = f'<p class="note" dir="auto">{escape(gallery.note)}</p>' if gallery.note else ""
    return (
        f'<figure class="wide"><figcaption dir="auto">{escape(gallery.title)}</figcaption>{note}'
        f'<div class="gallery">{queries}</div></figure>'
    )


def _query(query: Query) -> str:
    rank = "" if query.rank is None else f'<span class="rank">{_ordinal(query.rank)}</span>'
    meaning = f'<span class="meaning">{escape(query.meaning)}</span>' if query.meaning else ""
    found = "".join(_result(result) for result in query.results)
    tag = f'lang="{escape(query.language, quote=True)}"'
    asked = (
        f'<span class="language" {tag}>{escape(query.language_name)}</span>'
        f'<q {tag} dir="auto">{escape(query.text)}</q>{meaning}{rank}'
    )
    return f'<div class="query"><div class="asked">{asked}</div><ol>{found}</ol></div>'


def _result(result: Result) -> str:
    image = base64.b64encode(result.png).decode("ascii")
    kind = "right" if result.correct else "wrong"
    mark = '<span class="mark" aria-hidden="true">✓</span>' if result.correct else ""  # for eyes that see no green
    name = escape(result.name, quote=True)
    picture = f'<img src="data:image/png;base64,{image}" alt="{name}, {kind}">'
    return f'<li class="{kind}" title="{name}: {kind}">{picture}{mark}</li>'


def _credits(credits: Sequence[Credit]) -> Iterator[str]:
    if not credits:
        return
    yield '<section class="credits"><h2>The pictures</h2><ul>'
    for credit in credits:
        link = f'<a href="{escape(credit.url, quote=True)}">{escape(credit.artist)}</a>'
        note = f" {escape(credit.note)}" if credit.note else ""
        yield f'<li dir="auto">{link}, {escape(credit.licence)}.{note}</li>'
    yield "</ul></section>"


def _cells(row: Row, table: Table) -> list[tuple[Fraction, Fraction]]:
    """(value, before) for each column."""
    blank = [None] * len(table.columns)
    parts = [list(part) if part is not None else blank for part in (row.values, row.before)]
    if any(len(part) != len(table.columns) for part in parts):
        raise ValueError(f"row {row.label!r} of table {table.title!r} needs {len(table.columns)} figures: {row}")
    return list(zip(*parts, strict=True))


def _paragraphs(text: str) -> str:
    return "".join(f'<p dir="auto">{escape(part.strip())}</p>' for part in text.split("\n\n") if part.strip())


def _percent(value: Fraction) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if math.isfinite(value) else "not a number"


def _width(value: Fraction) -> str:
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.2f}%"


def _finite(value: Fraction) -> bool:
    return value is not None and math.isfinite(value)


def _ordinal(rank: int) -> str:
    return "found first" if rank == 1 else f"found at rank {rank}"
