"""Applies the outcomes of embedding to an index: as changes of its entries, and with new segments."""

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jclip.io.files import whole_file
from jclip.io.json_files import decode
from jclip.search.entries import stored_meta
from jclip.search.index import Index
from jclip.search.planning import Plan
from jclip.search.schema import ENTRIES, damaged, reporting_damage
from jclip.search.segments import DTYPE, FOLDER, ROWS, Segment, segment_file
from jclip.search.work import VECTOR_IN_BASE, Work
from jclip.search.writing import changing, new_entries, write_vectors

_UNUSED = 0.25
"""Share of unused vectors at which the segments are written anew."""

_BLOCK = 4096  # vectors
_ALL = 2**63 - 1


class Change(NamedTuple):
    """New or changed entry.

    Attributes:
      what: "new", "changed", "renamed", "copied" or "unchanged"; the latter may differ in time or caption.
      id: id of the entry that it replaces; None for another entry.
      vector: number of its vector.
      path, kind, …: columns of the table of entries.
    """

    what: str
    id: int | None
    vector: int
    path: bytes
    kind: str
    size: int | None
    mtime_ns: int | None
    hash: bytes | None
    width: int | None
    height: int | None
    date: int | None
    text: str | None
    meta: str
    source: int
    container: int | None
    position: int | None


@dataclass
class Changes:
    """Changes of an index.

    Attributes:
      counts: number of entries of each `Change.what`, and "gone".
      gone: ids of entries to drop.
      keys: keys of new vectors; the first one has number `first`.
    """

    first: int
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("new", "changed", "renamed", "copied", "unchanged", "gone"), 0)
    )
    gone: list[int] = field(default_factory=list)
    keys: dict[bytes, int] = field(default_factory=dict)


def find_changes(work: Work, changes: Changes, end: int = _ALL) -> Iterator[Change]:
    """Yields new and changed entries in order, and completes `changes` with the others at the end.

    Only items of the plan whose number is less than `end` count.
    """
    gone: dict[tuple[Any, Any], list[int]] = {}
    ids = []
    for id, kind, hash in work.rows(_GONE):
        ids.append(id)
        if hash is not None:
            gone.setdefault((kind, hash), []).append(id)
    for waiting in gone.values():
        waiting.reverse()  # the first one is taken first
    moved = set()
    changes.counts["unchanged"] += work.number(_KEPT)
    after = 0
    while rows := work.rows(_RESOLVED, (after, end)):
        for row in rows:
            change = _change(_Resolved(*row), changes, gone)
            changes.counts[change.what] += 1
            if change.what == "renamed":
                moved.add(change.id)
            yield change
        after = rows[-1][0]
    changes.gone = [id for id in ids if id not in moved]
    changes.counts["gone"] = len(changes.gone)
    changes.gone += [id for (id,) in work.rows(_LOST)]


class _Resolved(NamedTuple):
    number: int
    path: bytes
    kind: str
    size: int | None
    mtime_ns: int | None
    text: str | None
    meta: str
    position: int | None
    source: int
    container: int | None
    key: bytes
    width: int | None
    height: int | None
    date: int | None
    facts: str | None
    id: int | None
    old_kind: Any
    old_hash: Any
    old_vector: Any
    vector: Any


_RESOLVED = (
    "SELECT p.number, p.path, p.kind, p.size, p.mtime_ns, p.text, p.meta, p.position, p.source, p.container, done.key, "
    "coalesce(done.width, p.width), coalesce(done.height, p.height), coalesce(done.date, p.date, p.mtime_ns / "
    f"1000000000), done.facts, e.id, e.kind, e.hash, e.vector, ({VECTOR_IN_BASE}) FROM plan p JOIN done "
    "ON done.path = p.path LEFT JOIN base.entries e ON e.path = p.path "
    "WHERE done.key IS NOT NULL AND NOT p.unchanged AND p.number > ? AND p.number < ? ORDER BY p.number "
    "LIMIT 1000"
)
_IN_SCOPE = (
    "FROM base.entries e WHERE e.source IN (SELECT id FROM scope) AND NOT EXISTS (SELECT 1 FROM plan WHERE "
    "plan.path = e.path)"
)
_IS_KEPT = (
    "(e.container IN (SELECT id FROM kept_containers) OR EXISTS (SELECT 1 FROM kept_folders k WHERE "
    "substr(e.path, 1, length(k.prefix)) = k.prefix))"
)
_GONE = f"SELECT e.id, e.kind, e.hash {_IN_SCOPE} AND NOT coalesce({_IS_KEPT}, 0) ORDER BY e.id"
_KEPT = f"SELECT (SELECT count(*) FROM plan WHERE unchanged) + (SELECT count(*) {_IN_SCOPE} AND {_IS_KEPT})"
_LOST = "SELECT e.id FROM base.entries e WHERE e.path IN (SELECT path FROM done WHERE reason IS NOT NULL) ORDER BY e.id"


def _change(row: _Resolved, changes: Changes, gone: dict[tuple[Any, Any], list[int]]) -> Change:
    hash = row.key[1:] if row.key[:1] != b"/" else None
    same = hash is not None and (row.old_kind, row.old_hash) == (row.kind, hash)
    known = row.vector is not None or row.key in changes.keys
    id = row.id
    if id is not None:
        what = "unchanged" if same else "changed"
    elif waiting := gone.get((row.kind, hash)):
        what, id = "renamed", waiting.pop()
    else:
        what = "copied" if known else "new"
    vector = row.old_vector if same else row.vector
    if vector is None:
        vector = changes.keys.setdefault(row.key, changes.first + len(changes.keys))
    meta = row.meta if row.facts is None else stored_meta({**decode(row.facts), **decode(row.meta)})
    facts = row.path, row.kind, row.size, row.mtime_ns, hash, row.width, row.height, row.date, row.text, meta
    return Change(what, id, vector, *facts, row.source, row.container, row.position)


def write_new(work: Work, plan: Plan, folder: Path, dim: int, end: int = _ALL) -> Changes:
    """Writes the segments and the database of a new index into an existing folder.

    `end` is as in `find_changes`.
    """
    changes = Changes(0)
    with new_entries(folder / ENTRIES) as connection:
        _apply(connection, work, plan, changes, end)
        table = write_vectors(folder, _new_vectors(work, changes, dim), dim, Segment(0, 0, len(changes.keys)))
        connection.executemany("INSERT INTO segments VALUES (?, ?, ?)", table)
    return changes


def write_update(work: Work, plan: Plan, index: Index) -> Changes:
    """Writes the changes of an index: new segments, and then the database, whose renaming is the commit.

    Afterwards removes segments that are not used any more. An interrupted update leaves the index as it was.
    """
    folder = index.folder
    changes = Changes(index.vectors)
    with _replaced(folder / ENTRIES) as connection:
        _apply(connection, work, plan, changes)
        _write_segments(connection, work, changes, index)
        used = {number for (number,) in connection.execute("SELECT number FROM segments")}
    kept = {segment_file(folder, number).name for number in used}
    for file in (folder / FOLDER).iterdir():
        if file.name not in kept:
            with suppress(OSError):  # Windows keeps a file that a reader has mapped
                file.unlink()
    return changes


@contextmanager
def _replaced(file: Path) -> Iterator[sqlite3.Connection]:
    """Yields a connection to a copy of a database, which replaces it after the block."""
    with whole_file(file, replace=True) as partial:
        shutil.copyfile(file, partial)
        with changing(partial) as connection, reporting_damage(file):
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")


def _apply(connection: sqlite3.Connection, work: Work, plan: Plan, changes: Changes, end: int = _ALL) -> None:
    """Changes the tables of entries, sources, containers and skipped images."""
    run = connection.execute
    next_id = (run("SELECT max(id) FROM entries").fetchone()[0] or 0) + 1
    columns = [name for name in Change._fields if name not in ("what", "id")]
    update = f"UPDATE entries SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?"
    insert = f"INSERT INTO entries ({', '.join(columns)}, id) VALUES ({', '.join('?' * (len(columns) + 1))})"
    for change in find_changes(work, changes, end):
        if change.id is None:
            run(insert, (*change[2:], next_id))
            next_id += 1
        else:
            run(update, (*change[2:], change.id))
    connection.executemany("DELETE FROM entries WHERE id = ?", ((id,) for id in changes.gone))
    for row in work.rows("SELECT id, kind, place FROM scope ORDER BY id"):
        run("INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", row)
    # An unchanged entry of a source that is gone belongs to the source that found it.
    moved = work.rows(
        "SELECT p.source, e.id, e.source FROM plan p JOIN base.entries e ON e.path = p.path WHERE unchanged"
    )
    connection.executemany(
        "UPDATE entries SET source = ? WHERE id = ?", (row[:2] for row in moved if row[2] in plan.gone)
    )
    connection.executemany("DELETE FROM sources WHERE id = ?", ((id,) for id in plan.gone))
    for row in work.rows("SELECT id, kind, place, stamp FROM main.containers ORDER BY id"):
        run("INSERT OR REPLACE INTO containers VALUES (?, ?, ?, ?)", row)
    run("DELETE FROM containers WHERE id NOT IN (SELECT container FROM entries WHERE container IS NOT NULL)")
    scope = [id for (id,) in work.rows("SELECT id FROM scope")]
    connection.executemany("DELETE FROM skipped WHERE source = ?", ((id,) for id in scope))
    run("CREATE TEMP TABLE lost (path BLOB PRIMARY KEY, reason TEXT, detail TEXT, source INTEGER)")
    connection.executemany("INSERT OR IGNORE INTO lost VALUES (?, ?, ?, ?)", work.rows(SKIPPED))
    run(
        "INSERT INTO skipped (path, reason, detail, source) SELECT path, reason, detail, source FROM lost ORDER BY path"
    )


SKIPPED = (
    "SELECT path, reason, detail, source FROM lost UNION ALL SELECT done.path, done.reason, done.detail, plan.source "
    "FROM done JOIN plan ON plan.path = done.path WHERE done.reason IS NOT NULL ORDER BY 1"
)
"""Statement that selects (path, reason, detail, source) of what was skipped."""


def _write_segments(connection: sqlite3.Connection, work: Work, changes: Changes, index: Index) -> None:
    """Writes new vectors: together with a last segment that is not full, or all vectors if many are unused."""
    run, dim = connection.execute, index.facts.dim
    table = [Segment(*row) for row in run("SELECT number, first, count FROM segments ORDER BY first")]
    number = max((segment.number for segment in table), default=-1) + 1
    count = index.vectors + len(changes.keys)
    before: Iterator[np.ndarray] = iter(())
    used = run("SELECT count(DISTINCT vector) FROM entries").fetchone()[0]
    if count - used > _UNUSED * count:
        live = [vector for (vector,) in run("SELECT DISTINCT vector FROM entries ORDER BY vector")]
        if not all(isinstance(vector, int) and 0 <= vector < count for vector in live):
            raise damaged(index.folder / ENTRIES, "it names a vector that does not exist")
        old = [vector for vector in live if vector < index.vectors]
        new = np.array([vector - index.vectors for vector in live[len(old) :]], np.int64)
        before = (index.vectors_at(old[start : start + _BLOCK]) for start in range(0, len(old), _BLOCK))
        run("CREATE TEMP TABLE numbers (old INTEGER PRIMARY KEY, new INTEGER)")
        connection.executemany("INSERT INTO numbers VALUES (?, ?)", ((old, new) for new, old in enumerate(live)))
        run("UPDATE entries SET vector = (SELECT new FROM numbers WHERE old = entries.vector)")
        run("DELETE FROM segments")
        whole = Segment(number, 0, len(live))
        vectors = itertools.chain(before, _chosen(_new_vectors(work, changes, dim), new))
    elif not changes.keys:
        return
    else:
        whole = Segment(number, index.vectors, len(changes.keys))
        if table and table[-1].rows < ROWS:
            last = table[-1]
            run("DELETE FROM segments WHERE number = ?", (last.number,))
            whole = Segment(number, last.first, last.rows + len(changes.keys))
            numbers = range(last.first, last.first + last.rows)
            before = (index.vectors_at(numbers[start : start + _BLOCK]) for start in range(0, last.rows, _BLOCK))
        vectors = itertools.chain(before, _new_vectors(work, changes, dim))
    connection.executemany("INSERT INTO segments VALUES (?, ?, ?)", write_vectors(index.folder, vectors, dim, whole))


def _chosen(blocks: Iterator[np.ndarray], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the given rows of blocks; the numbers are sorted."""
    start = 0
    for block_nd in blocks:
        mine = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(block_nd))] - start
        if len(mine):
            yield block_nd[mine]
        start += len(block_nd)


def _new_vectors(work: Work, changes: Changes, dim: int) -> Iterator[np.ndarray]:
    """Yields the new vectors in the order of their numbers, in blocks."""
    keys = list(changes.keys)
    for start in range(0, len(keys), _BLOCK):
        rows = [
            work.rows("SELECT vector FROM vectors WHERE key = ?", (key,))[0][0] for key in keys[start : start + _BLOCK]
        ]
        yield np.frombuffer(b"".join(rows), DTYPE).reshape(-1, dim)
