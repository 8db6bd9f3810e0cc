"""Entries of an index: images and texts, as rows of its database."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jclip.io.json_files import decode
from jclip.plain import as_json

IMAGE, TEXT = "image", "text"
KINDS = (IMAGE, TEXT)
"""Kinds of entries."""

FILE = "file"
"""Origin of an entry that is a file of its own."""

MEMBER = "::"
"""Between the path of a container, such as a tar, and the name of its member: "holiday.tar::beach/1.jpg"."""

COLUMNS = (
    "id", "vector", "path", "kind", "size", "mtime_ns", "hash", "width", "height", "date", "text", "meta", "position",
)  # fmt: skip
"""Columns of an entry; `entry_of` needs the kind and path of its container after them."""
SELECT = (
    f"SELECT {', '.join(f'entries.{name}' for name in COLUMNS)}, containers.kind, containers.place "
    "FROM entries LEFT JOIN containers ON containers.id = entries.container"
)
"""Statement whose rows `entry_of` reads."""


@dataclass(frozen=True)
class Entry:
    """An image or a text of an index.

    Attributes:
      id: number that stays the same when the index is updated.
      vector: number of its vector, which entries of equal content share.
      path: absolute path; for a member of a container "CONTAINER::NAME". Names that are not UTF-8 have surrogates.
      kind: "image" or "text".
      size: number of bytes; None if not known.
      mtime_ns: time of the last change in nanoseconds since 1970; None if not known.
      hash: BLAKE2b digest of the content, 16 bytes; None if only the vector was imported.
      width, height: of an image, upright, in pixels; None if not known.
      text: the text, or the first caption of an image; None if there is none.
      meta: other facts about it, JSON-ready.
      date: time of an image according to its camera, else of the file's last change; seconds since 1970.
      origin: "file", or the kind of its container: "tar", "data", "text" or "clip-retrieval".
      container: path of the container; None for a file of its own.
      position: place of its content in the container: offset, line or record.
    """

    id: int
    vector: int
    path: Path
    kind: str = IMAGE
    size: int | None = None
    mtime_ns: int | None = None
    hash: bytes | None = None
    width: int | None = None
    height: int | None = None
    text: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    date: int | None = None
    origin: str = FILE
    container: Path | None = None
    position: int | None = None


def entry_of(row: tuple[Any, ...]) -> Entry:
    """Returns the entry in a row of `SELECT`. Raises sqlite3.DatabaseError if a value is not of the column's type."""
    found = dict(zip((*COLUMNS, "origin", "container"), row, strict=True))
    for name, kind, optional in _TYPES:
        value = found[name]
        if not (isinstance(value, kind) or (value is None and optional)):
            raise sqlite3.DatabaseError(f"column {name} has a value of type {type(value).__name__}")
    if found["kind"] not in KINDS or found["vector"] < 0 or (found["origin"] is None) != (found["container"] is None):
        raise sqlite3.DatabaseError(f"entry {found['id']} is not valid")
    found["path"] = path_of(found["path"])
    found["container"] = None if found["container"] is None else path_of(found["container"])
    found["origin"] = found["origin"] or FILE
    try:
        found["meta"] = decode(found["meta"])
    except ValueError as error:
        raise sqlite3.DatabaseError(f"meta of entry {found['id']}: {error}") from None
    if not isinstance(found["meta"], dict):
        raise sqlite3.DatabaseError(f"meta of entry {found['id']} is not an object")
    return Entry(**found)


def path_of(place: Any) -> Path:
    """Returns a path from its bytes. Raises sqlite3.DatabaseError if they cannot be a path."""
    if not isinstance(place, bytes) or not place or b"\0" in place:
        raise sqlite3.DatabaseError("a path is not valid")
    return Path(os.fsdecode(place))


def stored_meta(meta: Mapping[str, Any]) -> str:
    """Returns facts as they are stored: JSON with sorted names."""
    return as_json(dict(meta), sort_keys=True, separators=(",", ":"))


_TYPES: tuple[tuple[str, type, bool], ...] = (
    *((name, int, False) for name in ("id", "vector")),
    *((name, int, True) for name in ("size", "mtime_ns", "width", "height", "date", "position")),
    *((name, bytes, False) for name in ("path",)),
    *((name, bytes, True) for name in ("hash", "container")),
    *((name, str, False) for name in ("kind", "meta")),
    *((name, str, True) for name in ("text", "origin")),
)
