"""Entries as the values that a database can hold."""

import math
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jclip.errors import JclipError
from jclip.io.json_files import decode
from jclip.plain import as_json
from jclip.search.entries import COLUMNS, Entry, entry_of
from jclip.search.index import IndexFacts
from jclip.search.stores.addresses import Address

FORMAT = 1
"""Version of the tables. A table of another one is refused."""

_NO_CHARACTER = re.compile("[\x00\ud800-\udfff]")
"""NUL and lone surrogates, which no database accepts in a text."""


def clean(value: Any) -> Any:
    """Returns a JSON value that a database can hold: U+FFFD replaces NUL and lone surrogates, None replaces NaN.

    >>> clean({"a": ["b\\0", float("inf")]})
    {'a': ['b\ufffd', None]}
    """
    if isinstance(value, str):
        return _NO_CHARACTER.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {clean(str(name)): clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def facts_as_text(facts: IndexFacts) -> str:
    """Returns the facts of a table as a database stores them."""
    return as_json({"jclip": FORMAT, **asdict(facts)}, sort_keys=True)


def facts_of_text(text: str | None, address: Address) -> IndexFacts:
    """Returns the facts that `facts_as_text` wrote. Raises JclipError if it did not, or in another version."""
    try:
        record = decode(text or "")
        version = record.pop("jclip")
        facts = IndexFacts(**record)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise JclipError(f"{address}: jclip did not make this table: choose another name with ?table=NAME") from None
    if version != FORMAT:
        raise JclipError(f"{address}: its format is {version}, but this jclip reads {FORMAT}: install the other jclip")
    return facts


def entry_of_values(values: Mapping[str, Any], address: Address) -> Entry:
    """Returns the entry in a row: its fields by name, with paths as bytes.

    Raises JclipError if a value is not valid, because another program may have written it.
    """
    try:
        origin = None if values["container"] is None else values["origin"]
        row = {**values, "meta": as_json(values["meta"])}
        return entry_of((*(row[name] for name in COLUMNS), origin, values["container"]))
    except (KeyError, TypeError, ValueError, sqlite3.DatabaseError):
        raise JclipError(f"{address}: row {values.get('id')} is not one of jclip's: push the index again") from None
