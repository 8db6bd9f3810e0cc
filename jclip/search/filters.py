"""Filters of a search: folder, date, kind and metadata, as SQL conditions with bound parameters."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from jclip.errors import JclipError
from jclip.plain import shown

Relation = Literal["=", "!=", "<", "<=", ">", ">="]

_RELATIONS: tuple[Relation, ...] = ("!=", "<=", ">=", "=", "<", ">")
_TEST = re.compile(rf"\s*(.*?)\s*({'|'.join(_RELATIONS)})\s*(.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?|[+-]?\.[0-9]+", re.ASCII)
# Text of JSON that is a number as people write it: the CSV that metadata come from knows only text.
_NUMERIC = "({0}.value IN (CAST(CAST({0}.value AS INTEGER) AS TEXT), CAST(CAST({0}.value AS REAL) AS TEXT)))"
_WORDS = "CASE {0}.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST({0}.value AS TEXT) END"


class Comparison(NamedTuple):
    """Comparison of one name of the metadata with a value.

    Attributes:
      name: name in the metadata; case counts.
      relation: "=", "!=", "<", "<=", ">" or ">=".
      value: text. If it is a number, it is compared with numbers, and with texts that are one, such as "2020" but not
        "007". Otherwise texts are compared by their bytes in UTF-8.
    """

    name: str
    relation: Relation
    value: str


@dataclass(frozen=True)
class Filter:
    """Conditions that an entry must meet, all of them.

    A list in the metadata meets "=" and the inequalities if one of its items does. An entry meets "!=" if it does not
    meet "=": also if it lacks the name.

    Attributes:
      folder: absolute path: entries in this folder, its subfolders, or this tar or other container.
      since: entries of this time or later. Without a time zone it is local time. An entry's time is that of its
        camera, if it has one, else that of the last change of its file.
      before: entries of an earlier time than this.
      kind: "image" or "text".
      meta: comparisons of metadata.
    """

    folder: str | os.PathLike[str] | None = None
    since: datetime | None = None
    before: datetime | None = None
    kind: Literal["image", "text"] | None = None
    meta: tuple[Comparison, ...] = ()

    def where(self) -> tuple[str, list[Any]]:
        """Returns an SQL condition on columns of the table of entries, and the values of its parameters."""
        parts: list[tuple[str, Sequence[Any]]] = []
        if self.folder is not None:
            parts.append(_within(os.fsencode(self.folder)))
        if self.since is not None:
            parts.append(("date >= ?", [seconds(self.since)]))
        if self.before is not None:
            parts.append(("date < ?", [seconds(self.before)]))
        if self.kind is not None:
            parts.append(("kind = ?", [self.kind]))
        parts += [_compared(test) for test in self.meta]
        return " AND ".join(f"({words})" for words, _ in parts) or "1", [each for _, some in parts for each in some]


def parse_comparison(text: str) -> Comparison:
    """Returns the comparison that a text describes: a name, a relation and a value.

    >>> parse_comparison("year >= 2020"), parse_comparison("tag=海滩")
    (Comparison(name='year', relation='>=', value='2020'), Comparison(name='tag', relation='=', value='海滩'))

    Raises JclipError if the text has no relation or no name, or is not valid UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JclipError(f"condition {shown(text)!r} is not valid UTF-8: correct it") from None
    found = _TEST.fullmatch(text)
    if found is None or not found[1]:
        raise JclipError(f"condition {shown(text)!r} is not a comparison: give NAME=VALUE, NAME!=VALUE or NAME>=VALUE")
    return Comparison(found[1], found[2], found[3])  # type: ignore[arg-type]


def parse_time(text: str, *, end: bool = False) -> datetime:
    """Returns the time that a date or time of ISO 8601 describes; for a date its beginning, or its `end`.

    >>> parse_time("2024-05-01"), parse_time("2024-05-01", end=True), parse_time("2024-05-01T12:30")
    (datetime.datetime(2024, 5, 1, 0, 0), datetime.datetime(2024, 5, 2, 0, 0), datetime.datetime(2024, 5, 1, 12, 30))

    Raises JclipError if it is neither.
    """
    try:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            return datetime.fromisoformat(text)
        return datetime(day.year, day.month, day.day) + timedelta(days=1 if end else 0)
    except (ValueError, OverflowError):
        raise JclipError(f"{shown(text)!r} is not a date: give one such as 2024-05-01 or 2024-05-01T12:30") from None


def _within(folder: bytes) -> tuple[str, list[bytes]]:
    """Returns the condition that a path is `folder` or below it. Blobs are compared byte by byte."""
    folder = folder.rstrip(b"/")
    ranges = [(folder + b"/", folder + b"0"), (folder + b"::", folder + b":;")]  # the successors of "/" and ":"
    words = " OR ".join(("path = ?", *("(path >= ? AND path < ?)" for _ in ranges)))
    return words, [folder, *(bound for both in ranges for bound in both)]


def seconds(time: datetime) -> int:
    """Returns a time in seconds since 1970, rounded up. Raises JclipError if it is out of range."""
    try:
        return math.ceil(time.timestamp())
    except (ValueError, OverflowError, OSError):
        raise JclipError(f"the date {time} is out of range: give a year from 1970 to 9999") from None


def as_number(text: str) -> float | None:
    """Returns the number that a text is, in decimal notation; None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _compared(test: Comparison) -> tuple[str, list[Any]]:
    if test.relation == "!=":
        words, values = _compared(test._replace(relation="="))
        return f"NOT {words}", values
    number = as_number(test.value)

    def holds(row: str) -> tuple[str, list[Any]]:
        texts = f"{row}.type NOT IN ('array', 'object', 'null') AND {_WORDS.format(row)} {test.relation} ?"
        if number is None:
            return texts, [test.value]
        numbers = (
            f"({row}.type IN ('integer', 'real') OR ({row}.type = 'text' AND {_NUMERIC.format(row)})) "
            f"AND CAST({row}.value AS REAL) {test.relation} ?"
        )
        if test.relation == "=":
            return f"(({numbers}) OR ({texts}))", [number, test.value]
        return numbers, [number]

    (whole, whole_values), (item, item_values) = holds("one"), holds("item")
    words = (
        f"EXISTS (SELECT 1 FROM json_each(meta) AS one WHERE one.key = ? AND ({whole} OR (one.type = 'array' "
        f"AND EXISTS (SELECT 1 FROM json_each(one.value) AS item WHERE {item}))))"
    )
    return words, [test.name, *whole_values, *item_values]
