"""Filters in requests, and the values by which an index can be filtered."""

import os
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from jclip.errors import JclipError
from jclip.search.entries import MEMBER
from jclip.search.filters import Comparison, Filter, parse_time
from jclip.search.index import Index
from jclip.serve.fields import Field, Flag, MapOf, Number, OneOf, Record, Text
from jclip.serve.refusals import wrong

_MOST_TESTS = 16
_MOST_FOLDERS, _MOST_VALUES, _MOST_NAMES = 200, 50, 30

FILTER = Record(
    {
        "folder": Field(Text(path=True), "Absolute path: entries in this folder or container, and below it."),
        "after": Field(Text(), "ISO 8601 date or time: entries of this date or later.", example="2024-05-01"),
        "before": Field(Text(), "ISO 8601 date or time: entries of this date or earlier.", example="2024-05-31"),
        "kind": Field(Text(choices=("image", "text"))),
        "meta": Field(
            MapOf(OneOf((Text(), Number(), Flag())), _MOST_TESTS), "Names and values of the metadata, all of them."
        ),
    },
    closed=True,
)
"""Condition on entries, as a search reads it."""


def filter_of(given: dict[str, Any] | None) -> Filter | None:
    """Returns the filter in a request; None if there is none. Raises Refusal if a date is not valid."""
    if given is None or not any(value is not None for value in given.values()):
        return None
    try:
        found = Filter(
            folder=given["folder"],
            since=None if given["after"] is None else parse_time(given["after"]),
            before=None if given["before"] is None else parse_time(given["before"], end=True),
            kind=given["kind"],
            meta=tuple(Comparison(name, "=", _written(value)) for name, value in (given["meta"] or {}).items()),
        )
        found.where()  # raises for a date that is out of range
    except JclipError as error:
        raise wrong("filter", str(error)) from None
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def choices(index: Index) -> dict[str, Any]:
    """Returns the values for a form: {"folders", "meta": {name: values}, "dates": [first, last] or []}."""
    paths = (os.fsdecode(path) for (path,) in index.query("SELECT path FROM entries"))
    first, last = index.query("SELECT min(date), max(date) FROM entries")[0]
    dates = [] if first is None else [datetime.fromtimestamp(each).isoformat() for each in (first, last)]
    return {"folders": folders(paths), "meta": _meta(index), "dates": dates}


def folders(paths: Any) -> list[str]:
    """Returns the folders and containers of paths, down to the depth at which there are not too many.

    >>> folders(["/a/b/1.jpg", "/a/c/2.jpg", "/a/t.tar::x/3.jpg"])
    ['/a/b', '/a/c', '/a/t.tar']
    """
    places = {
        Path(container if member else path).parts[: None if member else -1]
        for path in paths
        for container, member, _ in (path.partition(MEMBER),)
    }
    depth = max(map(len, places), default=0)
    found = places
    while len(found) > _MOST_FOLDERS and depth > 1:
        depth -= 1
        found = {parts[:depth] for parts in places}
    return sorted(str(Path(*parts)) for parts in list(found)[:_MOST_FOLDERS] if parts)


def _meta(index: Index) -> dict[str, list[str]]:
    """Returns the values of each name of the metadata that has few, the frequent names first."""
    rows = index.query(
        "SELECT one.key, one.type, one.value, count(*) FROM entries, json_each(entries.meta) AS one "
        "WHERE one.type NOT IN ('array', 'object', 'null') GROUP BY 1, 2, 3 LIMIT 100000"
    )
    names: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    for name, kind, value, count in rows:
        names[str(name)] += count
        values.setdefault(str(name), set()).add(kind if kind in ("true", "false") else str(value))
    few = [name for name, _ in names.most_common() if 1 < len(values[name]) <= _MOST_VALUES]
    return {name: sorted(values[name]) for name in few[:_MOST_NAMES]}
