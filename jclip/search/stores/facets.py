"""Filters on the rows of any database, by two columns that jclip computes: tags and bounds.

A tag is a digest of a fact about an entry: a value of its metadata, its kind, or a folder that it is in. A bound is the
smallest or largest number or text under a name of the metadata. So the values of a filter never become part of a
statement, and every database compares as the index does: see `jclip.search.filters`.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jclip.search.entries import Entry
from jclip.search.filters import Comparison, Filter, Relation, as_number, seconds

_WHOLE = re.compile("-?(0|[1-9][0-9]{0,17})", re.ASCII)
_LONGEST = 512
"""Number of bytes of a text that bounds compare."""


@dataclass(frozen=True)
class Facets:
    """Columns of a row.

    Attributes:
      tags: hex digests.
      bounds: numbers, and texts in hex, by a name of hex digits and letters.
    """

    tags: tuple[str, ...]
    bounds: dict[str, float | str]


@dataclass(frozen=True)
class Tagged:
    """Condition that a row has one of some tags, or none of them if `negated`."""

    tags: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Bounded:
    """Condition that a row has a bound, and it compares with a value: a number, or a text in hex."""

    name: str
    relation: Relation
    value: float | str


@dataclass(frozen=True)
class Dated:
    """Condition that a row has a date, and it compares with a number of seconds."""

    relation: Relation
    value: int


Condition = Tagged | Bounded | Dated


def facets_of(entry: Entry) -> Facets:
    """Computes the tags and bounds of an entry."""
    path = os.fsencode(entry.path)
    tags = {_tag("kind", entry.kind), *(_tag("folder", place) for place in _places(path))}
    bounds: dict[str, float | str] = {}
    for name, value in entry.meta.items():
        items = value if isinstance(value, list) else [value]
        texts = [text for text in map(_text, items) if text is not None]
        numbers = [number for number in map(_number, items) if number is not None]
        tags.update(_tag("text", name, text) for text in texts)
        tags.update(_tag("number", name, number) for number in numbers)
        for kind, values in (("number", numbers), ("text", [_ordered(text) for text in texts])):
            if values:
                bounds[_bound(kind, name, "<")] = min(values)
                bounds[_bound(kind, name, ">")] = max(values)
    return Facets(tuple(sorted(tags)), bounds)


def conditions_of(chosen: Filter | None) -> Iterator[Condition]:
    """Yields the conditions of a filter; a row must meet all of them."""
    if chosen is None:
        return
    if chosen.folder is not None:
        yield Tagged((_tag("folder", os.fsencode(chosen.folder).rstrip(b"/")),))
    if chosen.since is not None:
        yield Dated(">=", seconds(chosen.since))
    if chosen.before is not None:
        yield Dated("<", seconds(chosen.before))
    if chosen.kind is not None:
        yield Tagged((_tag("kind", chosen.kind),))
    yield from map(_condition, chosen.meta)


def _condition(test: Comparison) -> Condition:
    number = as_number(test.value)
    if test.relation in ("=", "!="):
        tags = [_tag("text", test.name, test.value)]
        if number is not None:
            tags.append(_tag("number", test.name, number))
        return Tagged(tuple(tags), negated=test.relation == "!=")
    if number is None:
        return Bounded(_bound("text", test.name, test.relation), test.relation, _ordered(test.value))
    return Bounded(_bound("number", test.name, test.relation), test.relation, number)


def _places(path: bytes) -> Iterator[bytes]:
    """Yields a path, and everything that it is in: folders, and containers such as tars."""
    yield path
    for found in re.finditer(b"/|::", path):
        yield path[: found.start()]


def _text(item: Any) -> str | None:
    if isinstance(item, bool):
        return "true" if item else "false"
    return str(item) if isinstance(item, str | int | float) else None


def _number(item: Any) -> float | None:
    """Returns the number that an item is, or that its text is as people write it."""
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if not is_number and not (isinstance(item, str) and (_WHOLE.fullmatch(item) or _is_decimal(item))):
        return None
    try:
        number = float(item)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_decimal(text: str) -> bool:
    number = as_number(text)
    return number is not None and repr(number) == text


def _ordered(text: str) -> str:
    """Returns a text in hex, in which the order of code points is kept."""
    return text.encode("utf-8", "surrogatepass")[:_LONGEST].hex()


def _bound(kind: str, name: str, relation: str) -> str:
    return f"{_tag(kind, name)}{'low' if relation.startswith('<') else 'high'}"


def _tag(*parts: Any) -> str:
    written = repr(tuple(part + 0.0 if isinstance(part, float) else part for part in parts))  # -0.0 equals 0.0
    return hashlib.blake2b(written.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
