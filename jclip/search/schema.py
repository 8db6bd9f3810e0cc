"""Tables of an index's entries.sqlite, and their safe opening: docs/index-format.md describes them.

A database is written once, by `jclip.search.writing`, and then replaced as a whole. So a reader may open it as
immutable: without locks, journals or other files beside it.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from jclip.errors import JclipError, first_line
from jclip.io.reading import Refused, open_regular

ENTRIES = "entries.sqlite"
APPLICATION = 0x6A636C70
"""SQLite's application_id of the database: "jclp"."""

TABLES = (
    "CREATE TABLE sources (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, place BLOB NOT NULL)",
    "CREATE TABLE containers (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, place BLOB NOT NULL, stamp BLOB NOT NULL)",
    "CREATE TABLE segments (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, vector INTEGER NOT NULL, path BLOB NOT NULL, kind TEXT NOT NULL, "
    "size INTEGER, mtime_ns INTEGER, hash BLOB, width INTEGER, height INTEGER, date INTEGER, text TEXT, "
    "meta TEXT NOT NULL, source INTEGER NOT NULL, container INTEGER, position INTEGER)",
    "CREATE TABLE skipped (id INTEGER PRIMARY KEY, path BLOB NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, "
    "source INTEGER NOT NULL)",
)
INDEXES = (
    "CREATE UNIQUE INDEX entries_by_path ON entries (path)",
    "CREATE INDEX entries_by_vector ON entries (vector)",
    "CREATE INDEX entries_by_hash ON entries (hash)",
)

_LONGEST_VALUE = 16 << 20  # bytes
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
_ONCE = 500  # rows fetched by their numbers in one statement


def open_entries(file: Path) -> sqlite3.Connection:
    """Opens a database for reading, from any thread. Raises JclipError if it is missing, damaged, or has other tables.

    Tables other than `TABLES` are refused, because a hostile file could hide a computation behind a view.
    """
    try:
        with open_regular(file) as stream:
            magic = stream.read(16)
    except (OSError, ValueError, Refused) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise damaged(file, reason or "") from None
    if magic != b"SQLite format 3\0":
        raise damaged(file, "it is not an SQLite database")
    with reporting_damage(file):
        connection = sqlite3.connect(
            address(file, "mode=ro&immutable=1"), uri=True, check_same_thread=False, isolation_level=None
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
                connection.execute(f"PRAGMA {pragma}")
            found = {statement for (statement,) in connection.execute("SELECT sql FROM sqlite_schema")}
            if found != {*TABLES, *INDEXES}:
                raise damaged(file, "its tables are not those of an index")
        except BaseException:
            connection.close()
            raise
    return connection


def address(file: Path, options: str = "mode=rwc") -> str:
    """Returns SQLite's URI of a file, whose name need not be UTF-8."""
    return f"file:{quote(os.fsencode(file.absolute()))}?{options}"


def in_parts(connection: sqlite3.Connection, statement: str, numbers: list[int]) -> Iterator[tuple[object, ...]]:
    """Yields the rows of a statement for many numbers, which replace "(?)" in it, some at a time."""
    for start in range(0, len(numbers), _ONCE):
        some = numbers[start : start + _ONCE]
        yield from connection.execute(statement.replace("(?)", f"({', '.join('?' * len(some))})"), some).fetchall()


@contextmanager
def reporting_damage(file: Path) -> Iterator[None]:
    """Turns errors of a database into a JclipError about damage, or an OSError if the disk is full."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        if getattr(error, "sqlite_errorname", "") in _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from None
        raise damaged(file, first_line(error)) from None


def damaged(file: Path, reason: str) -> JclipError:
    """Returns the error for a damaged file of an index."""
    return JclipError(f"{file} cannot be read as part of an index ({reason}): copy it again, or run jclip embed again")
