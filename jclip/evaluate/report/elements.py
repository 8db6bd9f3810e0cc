"""Elements of a report, as plain data: tables, charts, galleries of retrieved images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Interval = tuple[float, float]
Fraction = float | None  # in [0, 1], shown as a percentage; None for "not available"


@dataclass(frozen=True)
class Row:
    """One row of a table, such as a language.

    Attributes:
      label: name of the row, in any script.
      values: figures, one for each column.
      before: the same figures before training, or of another model; shown beside them.
      intervals: (low, high) of each figure, or None; shown under it.
      changes: intervals of `values` minus `before`.
    """

    label: str
    values: Sequence[Fraction]
    before: Sequence[Fraction] | None = None
    intervals: Sequence[Interval | None] | None = None
    changes: Sequence[Interval | None] | None = None


@dataclass(frozen=True)
class Group:
    """Rows under one heading, such as the languages of a data set.

    Attributes:
      name: the heading.
      rows: the figures.
      references: rows for comparison, chance first, then baselines; drawn as ticks on the bars of the group.
    """

    name: str
    rows: Sequence[Row]
    references: Sequence[Row] = ()


@dataclass(frozen=True)
class Table:
    """Figures in groups.

    Attributes:
      title: caption of the table.
      columns: names of the figures: ("R@1", "R@5", "R@10").
      groups: the rows.
      note: remark under the table.
      before: description of the rows' `before`.
      main: index of the headline column.
      stacked: True if `before` holds another model's figures; a terminal then shows A, B and B − A in three lines.

    Raises:
      ValueError: a row does not have one figure for each column.
    """

    title: str
    columns: Sequence[str]
    groups: Sequence[Group]
    note: str = ""
    before: str = "before the stage"
    main: int = 0
    stacked: bool = False

    def __post_init__(self) -> None:
        for row in [row for group in self.groups for row in (*group.rows, *group.references)]:
            if any(part is not None and len(part) != len(self.columns) for part in (row.values, row.before)):
                raise ValueError(f"row {row.label!r} of table {self.title!r} needs {len(self.columns)} figures: {row}")

    def all_rows(self) -> list[Row]:
        """Returns the rows of all groups, without references."""
        return [row for group in self.groups for row in group.rows]

    def cells(self, row: Row) -> list["Cell"]:
        """Returns the cells of a row."""
        blank = [None] * len(self.columns)
        parts = (row.values, row.before, row.intervals, row.changes)
        return [Cell(*some) for some in zip(*(blank if part is None else part for part in parts), strict=True)]


@dataclass(frozen=True)
class Cell:
    """A figure of a table, with its entries of `Row`."""

    value: Fraction
    before: Fraction
    interval: Interval | None
    change: Interval | None

    @property
    def around(self) -> str:
        """Text under the figure: the interval of the change, else the figure's own; empty without either."""
        return between(self.change, signed=True) if self.change else between(self.interval) if self.interval else ""

    @property
    def difference(self) -> str:
        """The figure minus the figure before, such as "+1.9"; "–" if one is missing."""
        return "–" if self.value is None or self.before is None else change(self.value - self.before)

    @property
    def arrow(self) -> str:
        """The figure before and the figure, such as "25.0 → 62.7"; or the figure alone."""
        start = "" if self.before is None else f"{percent(self.before)} → "
        return f"{start}{percent(self.value)}"


@dataclass(frozen=True)
class Curve:
    """A named line; values that are not finite are gaps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Curves on common axes.

    Attributes:
      title: the quantity and its unit.
      curves: at most eight; each has its own colour.
      note: remark under the chart.
      levels: horizontal lines, such as chance: (name, value).
      marks: vertical lines, such as the start of a stage: (name, step).
      x_label: name of the horizontal axis.
      x_names: tick labels of steps 0, 1, 2, …, for an axis of categories.
      percent: values are fractions, shown as percentages.
    """

    title: str
    curves: Sequence[Curve]
    note: str = ""
    levels: Sequence[tuple[str, float]] = ()
    marks: Sequence[tuple[str, float]] = ()
    x_label: str = "step"
    x_names: Sequence[str] = ()
    percent: bool = False


@dataclass(frozen=True)
class Answer:
    """A retrieved image as a PNG file; correct if it is a positive of the query."""

    png: bytes
    correct: bool
    name: str


@dataclass(frozen=True)
class Query:
    """A text query and the images retrieved for it.

    Attributes:
      text: the query.
      language: BCP 47, such as "zh" or "ar"; the browser chooses glyphs by it.
      language_name: display name of the language, such as "中文".
      answers: retrieved images, best first.
      meaning: translation into the report's language.
      rank: rank of the best positive among all candidates, from 1.
    """

    text: str
    language: str
    language_name: str
    answers: Sequence[Answer]
    meaning: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Queries with their retrieved images."""

    title: str
    queries: Sequence[Query]
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """Confusion matrix: rows are true classes, columns predicted ones."""

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Heading, text (blank lines separate paragraphs), and the items under it."""

    title: str
    text: str = ""
    items: Sequence[Chart | Table | Gallery | Matrix] = ()


@dataclass(frozen=True)
class Credit:
    """Author and licence of some images on the page."""

    artist: str
    licence: str
    url: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
      title: title of the page.
      intro: introduction; blank lines separate paragraphs.
      sections: sections in reading order.
      facts: short headline figures: ("trained in", "8 min 40 s").
      credits: authors and licences of all images.
      footer: versions and the command that made the page.
    """

    title: str
    intro: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    credits: Sequence[Credit] = ()
    footer: str = ""


def between(interval: Interval, *, signed: bool = False) -> str:
    """Formats an interval: "41.9 to 44.0", or "−0.2 to +1.9" for a change."""
    return " to ".join(map(change if signed else percent, interval))


def change(value: float) -> str:
    """Formats a difference of fractions: "+1.9" or "−0.2"."""
    return f"{100 * value:+.1f}".replace("-", "−")


def percent(value: Fraction) -> str:
    """Formats a fraction as a percentage without its sign: "62.7"."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if math.isfinite(value) else "not a number"


def paragraphs(text: str) -> list[str]:
    """Splits a text at its blank lines."""
    return [part for part in map(str.strip, text.split("\n\n")) if part]
