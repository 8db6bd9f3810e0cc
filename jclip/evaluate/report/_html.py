"""A report's parts as HTML; nothing in them points outside, and all text is escaped."""

import base64
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files

from jclip.evaluate.report.chart import Chart, svg
from jclip.evaluate.report.parts import (
    Credit,
    Fraction,
    Gallery,
    Group,
    Interval,
    Matrix,
    Query,
    Report,
    Result,
    Section,
    Table,
    around_cells,
    cells,
    percent,
)
from jclip.plain import as_html as escape


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
        elif isinstance(item, Matrix):
            yield _matrix(item)
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
        legend = f'<li class="before">{escape(table.before)}</li>{legend}'
    if any(row.intervals for group in table.groups for row in group.rows):
        legend = f'<li class="range">95% interval over queries drawn again</li>{legend}'
    return (
        f'<figure class="wide"><figcaption dir="auto">{escape(table.title)}</figcaption>'
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead>{body}</table></div>'
        + (f'<ul class="legend ticks"><li class="bar">0 to 100%</li>{legend}</ul>' if legend else "")
        + (f'<p class="note" dir="auto">{escape(table.note)}</p>' if table.note else "")
        + "</figure>"
    )


def _group(group: Group, table: Table) -> str:
    references = [[value for value, _ in cells(row, table)] for row in group.references]
    columns = list(zip(*references, strict=True)) if references else [()] * len(table.columns)
    span = len(table.columns) + 1
    lines = [f'<tr class="group"><th scope="rowgroup" colspan="{span}" dir="auto">{escape(group.name)}</th></tr>']
    for row in group.rows:
        parts = zip(
            cells(row, table),
            columns,
            row.intervals or [None] * len(table.columns),
            around_cells(row, table),
            strict=True,
        )
        drawn = "".join(_cell(*cell, ticks, interval, around) for cell, ticks, interval, around in parts)
        lines.append(f'<tr><th scope="row"><bdi>{escape(row.label)}</bdi></th>{drawn}</tr>')
    for row in group.references:
        drawn = "".join(f"<td>{percent(value)}</td>" for value, _ in cells(row, table))
        lines.append(f'<tr class="reference"><th scope="row"><bdi>{escape(row.label)}</bdi></th>{drawn}</tr>')
    return f"<tbody>{''.join(lines)}</tbody>"


def _cell(value: Fraction, before: Fraction, ticks: Sequence[Fraction], interval: Interval | None, around: str) -> str:
    start = "" if before is None else f'<span class="before">{percent(before)} →</span> '
    number = f"{start}<b>{percent(value)}</b>"
    marks = [("before", before), *((f"r{i}", tick) for i, tick in enumerate(ticks))]
    drawn = "".join(f'<i class="{kind}" style="left:{_width(at)}"></i>' for kind, at in marks if _finite(at))
    filled = f'<i class="fill" style="width:{_width(value)}"></i>' if _finite(value) else ""
    if interval is not None:
        low, high = interval
        drawn += f'<i class="range" style="left:{_width(low)};width:{_width(high - low)}"></i>'
    under = f'<span class="interval">{around}</span>' if around else ""
    return f'<td>{number}<span class="track" aria-hidden="true">{filled}{drawn}</span>{under}</td>'


def _matrix(matrix: Matrix) -> str:
    """Squares as dark as their share of the row; the numbers are in their titles, and in them where there is room."""
    names, few = [escape(name) for name in matrix.names], len(matrix.names) <= 12
    head = "".join(f'<th scope="col"><span>{name}</span></th>' for name in names)
    rows = []
    for name, counts in zip(names, matrix.counts, strict=True):
        squares = []
        for other, count in zip(names, counts, strict=True):
            share = count / (sum(counts) or 1)
            told = f"{name} taken for {other}: {count} of {sum(counts)}"
            number = f"<span>{count}</span>" if few and count else ""
            strong = ' class="strong"' if share > 0.5 else ""
            squares.append(f'<td{strong} style="--share:{share:.3f}" title="{told}">{number}</td>')
        rows.append(f'<tr><th scope="row"><bdi>{name}</bdi></th>{"".join(squares)}</tr>')
    note = f'<p class="note" dir="auto">{escape(matrix.note)}</p>' if matrix.note else ""
    return (
        f'<figure class="wide"><figcaption dir="auto">{escape(matrix.title)}</figcaption>'
        f'<div class="scroll"><table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}</figure>"
    )


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
    tag = f'lang="{escape(query.language)}"'
    asked = (
        f'<span class="language" {tag}>{escape(query.language_name)}</span>'
        f'<q {tag} dir="auto">{escape(query.text)}</q>{meaning}{rank}'
    )
    return f'<div class="query"><div class="asked">{asked}</div><ol>{found}</ol></div>'


def _result(result: Result) -> str:
    image = base64.b64encode(result.png).decode("ascii")
    kind = "right" if result.correct else "wrong"
    mark = '<span class="mark" aria-hidden="true">✓</span>' if result.correct else ""  # for eyes that see no green
    name = escape(result.name)
    picture = f'<img src="data:image/png;base64,{image}" alt="{name}, {kind}">'
    return f'<li class="{kind}" title="{name}: {kind}">{picture}{mark}</li>'


def _credits(credits: Sequence[Credit]) -> Iterator[str]:
    if not credits:
        return
    yield '<section class="credits"><h2>The pictures</h2><ul>'
    for credit in credits:
        link = f'<a href="{escape(credit.url)}">{escape(credit.artist)}</a>'
        note = f" {escape(credit.note)}" if credit.note else ""
        yield f'<li dir="auto">{link}, {escape(credit.licence)}.{note}</li>'
    yield "</ul></section>"


def _paragraphs(text: str) -> str:
    return "".join(f'<p dir="auto">{escape(part.strip())}</p>' for part in text.split("\n\n") if part.strip())


def _width(value: Fraction) -> str:
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.2f}%"


def _finite(value: Fraction) -> bool:
    return value is not None and math.isfinite(value)


def _ordinal(rank: int) -> str:
    return "found first" if rank == 1 else f"found at rank {rank}"
