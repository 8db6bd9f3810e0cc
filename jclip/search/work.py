"""Work of embedding, in a database that survives a kill: the plan, the outcomes so far, and new vectors.

    scope               sources that this run looks at, with their ids in the index
    containers          containers that were listed, with their ids in the index
    plan                items of the sources, in order
    lost                images and folders of the sources that cannot be read
    kept_containers     containers whose entries stay as they are
    kept_folders        beginnings of the paths of entries that stay as they are
    done                outcomes of images and texts: a key, or the reason why it is skipped
    vectors             new vectors by key

Each run makes the first six anew; the last two last. A key is that of a content: its kind and hash; or of an item with
a given vector without a hash: its path. The database of the index that is updated is attached as `base`; for a new
index, `base` is empty.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jclip.io.files import Unfinished
from jclip.search.entries import KINDS, stored_meta
from jclip.search.schema import TABLES, address, reporting_damage
from jclip.search.segments import DTYPE
from jclip.search.sources.items import Item, Lost

_FRESH = {
    "scope": "id INTEGER PRIMARY KEY, kind TEXT NOT NULL, place BLOB NOT NULL",
    "containers": "id INTEGER PRIMARY KEY, kind TEXT NOT NULL, place BLOB NOT NULL, stamp BLOB NOT NULL",
    "plan": "number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, stamp BLOB NOT NULL, kind TEXT NOT NULL, "
    "size INTEGER, mtime_ns INTEGER, text TEXT, meta TEXT NOT NULL, position INTEGER, source INTEGER NOT NULL, "
    "container INTEGER, lister INTEGER, vector INTEGER, hash BLOB, width INTEGER, height INTEGER, date INTEGER, "
    "unchanged INTEGER NOT NULL DEFAULT 0",
    "lost": "path BLOB PRIMARY KEY, reason TEXT NOT NULL, detail TEXT NOT NULL, source INTEGER NOT NULL",
    "kept_containers": "id INTEGER PRIMARY KEY",
    "kept_folders": "prefix BLOB PRIMARY KEY",
}
_LASTING = {
    "facts": "fingerprint TEXT PRIMARY KEY",
    "done": "path BLOB PRIMARY KEY, stamp BLOB NOT NULL, key BLOB, width INTEGER, height INTEGER, date INTEGER, "
    "facts TEXT, reason TEXT, detail TEXT",
    "vectors": "number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL",
}
_PAGE = 512  # rows


class Planned(NamedTuple):
    """Item of the plan that needs work, as far as that must know it."""

    number: int
    path: bytes
    stamp: bytes
    kind: str
    size: int | None
    text: str | None
    position: int | None
    lister: int | None
    vector: int | None
    hash: bytes | None
    width: int | None
    height: int | None
    date: int | None


class Done(NamedTuple):
    """Outcome of an item: its key and facts, or the reason why it is skipped."""

    path: bytes
    stamp: bytes
    key: bytes | None = None
    width: int | None = None
    height: int | None = None
    date: int | None = None
    facts: str | None = None
    reason: str | None = None
    detail: str | None = None


def key_of(kind: str, hash: bytes) -> bytes:
    """Returns the key of a content."""
    return kind[:1].encode() + hash


def key_of_path(path: bytes) -> bytes:
    """Returns the key of an item with a given vector, but without a hash."""
    return b"/" + path


class Work:
    """Database of the work. Several threads may use it.

    Args:
      folder: existing folder for it.
      base: database of the index that is updated; None for a new index.
      fingerprint: facts on which vectors depend.

    Raises:
      Unfinished: the folder has work with another fingerprint.
    """

    def __init__(self, folder: Path, base: Path | None, fingerprint: Mapping[str, Any]):
        self._lock = threading.RLock()
        self._base, self.folder = base or folder, folder
        file = folder / "work.sqlite"
        self.connection = sqlite3.connect(address(file), uri=True, check_same_thread=False, isolation_level=None)
        try:
            self._prepare(base, json.dumps(fingerprint, sort_keys=True))
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, base: Path | None, fingerprint: str) -> None:
        run = self.connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")  # so that WAL needs no shared memory, which network disks lack
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        if base is None:
            run("ATTACH ':memory:' AS base")
            for statement in TABLES:
                run(statement.replace("CREATE TABLE ", "CREATE TABLE base."))
        else:
            run("ATTACH ? AS base", (address(base, "mode=ro&immutable=1"),))
        with self.transaction():
            for name, columns in _FRESH.items():
                run(f"DROP TABLE IF EXISTS main.{name}")
                run(f"CREATE TABLE main.{name} ({columns})")
            for name, columns in _LASTING.items():
                run(f"CREATE TABLE IF NOT EXISTS main.{name} ({columns})")
            found = run("SELECT fingerprint FROM facts").fetchone()
            if found is None:
                run("INSERT INTO facts VALUES (?)", (fingerprint,))
            elif found != (fingerprint,):
                raise Unfinished(
                    f"{self.folder} has unfinished work of another model or orientation: give the same ones, or "
                    "remove that folder"
                )

    def close(self) -> None:
        """Closes the database; the files stay."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes the statements of the block one transaction, which is undone if the block raises."""
        with self._lock, reporting_damage(self._base):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self.connection.in_transaction:  # SQLite undoes it by itself if the disk is full
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def rows(self, statement: str, values: Iterable[Any] = ()) -> list[Any]:
        """Returns the rows of a statement."""
        with self._lock, reporting_damage(self._base):
            return self.connection.execute(statement, tuple(values)).fetchall()

    def number(self, statement: str, values: Iterable[Any] = ()) -> int:
        """Returns the number that a statement selects; 0 for NULL."""
        return self.rows(statement, values)[0][0] or 0

    def add(self, item: Item, source: int, lister: int | None, container: int | None) -> None:
        """Adds an item to the plan, unless its path is in it; a container may have several members of one name."""
        values = (
            *(item.path, item.stamp, item.kind, item.size, item.mtime_ns, item.text, stored_meta(item.meta)),
            *(item.position, source, container, lister, item.vector, item.hash, item.width, item.height, item.date),
        )
        statement = (
            "INSERT OR IGNORE INTO plan (path, stamp, kind, size, mtime_ns, text, meta, position, source, container, "
            f"lister, vector, hash, width, height, date) VALUES ({', '.join('?' * len(values))})"
        )
        if not self.connection.execute(statement, values).rowcount and container is not None:
            self.connection.execute(statement, (item.path + b"#%d" % (item.position or 0), *values[1:]))

    def lose(self, lost: Lost, source: int) -> None:
        """Notes an image or folder that cannot be read. Entries below such a folder are kept."""
        self.connection.execute("INSERT OR IGNORE INTO lost VALUES (?, ?, ?, ?)", (*lost[:3], source))
        if lost.folder:
            for end in (b"/", b"::"):
                self.connection.execute("INSERT OR IGNORE INTO kept_folders VALUES (?)", (lost.path + end,))

    def settle(self) -> None:
        """Marks the unchanged items of a complete plan, and drops outcomes that do not hold any more."""
        with self.transaction():
            self.connection.execute(
                "UPDATE plan SET unchanged = 1 WHERE container IS NULL AND vector IS NULL AND EXISTS (SELECT 1 FROM "
                "base.entries e WHERE e.path = plan.path AND e.kind = plan.kind AND e.size = plan.size AND "
                "e.mtime_ns = plan.mtime_ns AND e.container IS NULL)"
            )
            self.connection.execute(
                "DELETE FROM done WHERE NOT EXISTS (SELECT 1 FROM plan WHERE plan.path = done.path AND "
                "plan.stamp = done.stamp AND NOT plan.unchanged) OR (key IS NOT NULL AND key NOT IN "
                f"(SELECT key FROM vectors) AND NOT EXISTS ({_in_base('done.key')}))"
            )
            # What was skipped before may be readable now.
            self.connection.execute("DELETE FROM done WHERE reason IS NOT NULL")

    def pending(self, condition: str) -> Iterator[Planned]:
        """Yields the items of the plan without an outcome, in order, that match an SQL condition."""
        after = 0
        while rows := self.rows(
            f"SELECT {', '.join(f'plan.{name}' for name in Planned._fields)} FROM plan LEFT JOIN done "
            f"ON done.path = plan.path WHERE done.path IS NULL AND NOT unchanged AND {condition} AND number > ? "
            f"ORDER BY number LIMIT {_PAGE}",
            (after,),
        ):
            yield from (Planned(*row) for row in rows)
            after = rows[-1][0]

    def first_pending(self) -> int:
        """Returns the number of the first item of the plan without an outcome; that after the last one if all have."""
        missing = "SELECT min(number) FROM plan LEFT JOIN done ON done.path = plan.path WHERE done.path IS NULL"
        return self.number(missing) or 1 + self.number("SELECT max(number) FROM plan")

    def has_outcomes(self, start: int, end: int) -> bool:
        """Returns True if an item of the plan from number `start` to before `end` has an outcome that is an entry."""
        statement = (
            "SELECT 1 FROM plan JOIN done ON done.path = plan.path WHERE done.key IS NOT NULL AND number >= ? "
            "AND number < ? LIMIT 1"
        )
        return bool(self.rows(statement, (start, end)))

    def known(self, key: bytes) -> bool:
        """Returns True if there is a vector of a key."""
        return bool(self.rows("SELECT 1 FROM vectors WHERE key = ?", (key,)) or self.rows(_in_base("?1"), (key,)))

    def finish(self, done: Iterable[Done], keys: list[bytes], vectors_nd: np.ndarray) -> None:
        """Stores outcomes and new vectors, (n, dim), in one transaction."""
        rows = (row_d.tobytes() for row_d in np.ascontiguousarray(vectors_nd, DTYPE))
        with self.transaction():
            self.connection.executemany("INSERT INTO vectors (key, vector) VALUES (?, ?)", zip(keys, rows, strict=True))
            marks = ", ".join("?" * len(Done._fields))
            self.connection.executemany(f"INSERT OR REPLACE INTO done VALUES ({marks})", done)


def _in_base(key: str) -> str:
    """Returns a statement that selects the vector of a key in the index that is updated."""
    kinds = " ".join(f"WHEN '{kind[:1]}' THEN '{kind}'" for kind in KINDS)
    kind = f"CASE CAST(substr({key}, 1, 1) AS TEXT) {kinds} END"
    return f"SELECT vector FROM base.entries WHERE hash = substr({key}, 2) AND kind = {kind} ORDER BY vector LIMIT 1"


VECTOR_IN_BASE = _in_base("done.key")
"""Statement that selects the vector of the key of a row of `done` in the index that is updated; NULL if it has none."""
