"""The parts of a report, as plain data: tables, curves, pictures that were found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from jclip.evaluate.report.chart import Chart

Interval = tuple[float, float]
Fraction = float | None  # in [0, 1], shown as a percentage; None where there is nothing to say


@dataclass(frozen=True)
class Row:
    """One line of a table, such as a language.

    Attributes:
      label: what the line is about, in any script.
      values: one for each column.
      before: the same figures before the stage, or of another model; shown beside them.
      intervals: of the figures, (low, high) or None; shown under them.
      changes: intervals of the figures less those before.
    """

    label: str
    values: Sequence[Fraction]
    before: Sequence[Fraction] | None = None
    intervals: Sequence[Interval | None] | None = None
    changes: Sequence[Interval | None] | None = None


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
    """Figures in groups.

    Attributes:
      title: what they are.
      columns: the names of the figures: ("R@1", "R@5", "R@10").
      groups: of rows.
      note: what to know of them.
      before: what the figures before are.
      main: the column of the headline figure, counted from 0.
      stacked: the figures before are those of another model, A, and a terminal shows the differences too.
    """

    title: str
    columns: Sequence[str]
    groups: Sequence[Group]
    note: str = ""
    before: str = "before the stage"
    main: int = 0
    stacked: bool = False


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
class Matrix:
    """Counts of what was taken for what: a row for each true name, its counts by the name that was given."""

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a few words (blank lines separate paragraphs), and what belongs under it."""

    title: str
    text: str = ""
    items: Sequence[Chart | Table | Gallery | Matrix] = ()


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


def cells(row: Row, table: Table) -> list[tuple[Fraction, Fraction]]:
    """(value, before) for each column.

    Raises:
      ValueError: the row does not have one figure for each column.
    """
    blank = [None] * len(table.columns)
    parts = [list(part) if part is not None else blank for part in (row.values, row.before)]
    if any(len(part) != len(table.columns) for part in parts):
        raise ValueError(f"row {row.label!r} of table {table.title!r} needs {len(table.columns)} figures: {row}")
    return list(zip(*parts, strict=True))


def around_cells(row: Row, table: Table) -> list[str]:
    """What stands under each figure: the interval of the change where there is one, or its own, or nothing."""
    blank = [None] * len(table.columns)
    pairs = zip(row.intervals or blank, row.changes or blank, strict=True)
    return [between(moved, signed=True) if moved else between(own) if own else "" for own, moved in pairs]


def between(interval: Interval, *, signed: bool = False) -> str:
    """As shown: "41.9 to 44.0", or "−0.2 to +1.9" for a change."""
    return " to ".join(change(end) if signed else percent(end) for end in interval)


def change(value: float) -> str:
    """As shown: "+1.9" or "−0.2"."""
    return f"{100 * value:+.1f}".replace("-", "−")


def percent(value: Fraction) -> str:
    """As shown: "62.7", without the sign."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if math.isfinite(value) else "not a number"
