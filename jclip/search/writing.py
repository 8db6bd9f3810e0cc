"""Writes an index: its facts, segments and database. Equal contents give equal bytes."""

import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jclip.io.files import whole_file, whole_folder
from jclip.plain import as_json
from jclip.search.entries import FILE, Entry, stored_meta
from jclip.search.index import FACTS, FORMAT, IndexFacts
from jclip.search.schema import APPLICATION, ENTRIES, INDEXES, TABLES
from jclip.search.segments import ROWS, Segment, write_segment


def write_index(folder: str | Path, facts: IndexFacts, vectors_nd: np.ndarray, entries: Iterable[Entry]) -> None:
    """Writes a whole index from arrays.

    Args:
      folder: path; an older index in it is replaced when the new one is complete.
      facts: contents of index.json.
      vectors_nd: L2-normalised vectors, (n, dim).
      entries: entries with different ids and paths, whose `vector` is a row of `vectors_nd`.
    """
    with whole_folder(Path(folder)) as partial:
        write_facts(partial, facts)
        table = write_vectors(partial, iter((vectors_nd,)), facts.dim, Segment(0, 0, len(vectors_nd)))
        with new_entries(partial / ENTRIES) as connection:
            connection.executemany("INSERT INTO segments VALUES (?, ?, ?)", table)
            connection.execute("INSERT INTO sources VALUES (1, 'folder', ?)", (b"/",))
            containers: dict[tuple[str, bytes], int] = {}
            for entry in entries:
                insert_entry(connection, entry, 1, containers)


def write_facts(folder: Path, facts: IndexFacts) -> None:
    """Writes index.json."""
    model = {"identity": facts.model_identity, "name": facts.model_name, "source": facts.model_source}
    record = {
        "format": FORMAT,
        "created_by": facts.created_by,
        "model": model,
        "dim": facts.dim,
        "dtype": facts.dtype,
        "orientation": facts.orientation,
    }
    with whole_file(folder / FACTS, replace=True) as partial:
        partial.write_text(as_json(record, indent=2) + "\n", encoding="utf-8")


def write_vectors(folder: Path, blocks: Iterator[np.ndarray], dim: int, whole: Segment) -> list[Segment]:
    """Writes vectors as segments of at most `ROWS` each, and returns the rows of their table.

    Args:
      blocks: vectors (n, dim), in order.
      whole: number of the first file, number of the first vector, and number of vectors.
    """
    rows = itertools.chain.from_iterable(blocks)
    table = []
    for number, start in enumerate(range(0, whole.rows, ROWS), whole.number):
        segment = Segment(number, whole.first + start, min(ROWS, whole.rows - start))
        write_segment(folder, segment, _blocks(itertools.islice(rows, segment.rows)), dim)
        table.append(segment)
    return table


def _blocks(rows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while some := list(itertools.islice(rows, 4096)):
        yield np.stack(some)


@contextmanager
def new_entries(file: Path) -> Iterator[sqlite3.Connection]:
    """Yields a connection to a new database with empty tables, which is complete after the block."""
    with whole_file(file, replace=True) as partial, changing(partial) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute("BEGIN")
        for statement in TABLES:
            connection.execute(statement)
        yield connection
        for statement in INDEXES:  # faster than before the rows
            connection.execute(statement)
        connection.execute("COMMIT")


@contextmanager
def changing(file: Path) -> Iterator[sqlite3.Connection]:
    """Yields a connection to a database that nothing else uses, and syncs it to the disk after the block.

    It keeps no journal, because the caller discards the file if the block fails.
    """
    connection = sqlite3.connect(os.fspath(file), isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection
    finally:
        connection.close()
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def insert_entry(
    connection: sqlite3.Connection, entry: Entry, source: int, containers: dict[tuple[str, bytes], int]
) -> None:
    """Inserts an entry. `containers` has the ids of containers by kind and path, and gets new ones."""
    container = None
    if entry.container is not None:
        key = entry.origin, os.fsencode(entry.container)
        if key not in containers:
            containers[key] = len(containers) + 1
            connection.execute("INSERT INTO containers VALUES (?, ?, ?, ?)", (containers[key], *key, b""))
        container = containers[key]
    else:
        assert entry.origin == FILE, "an entry of another origin has a container"
    values: tuple[Any, ...] = (
        *(entry.id, entry.vector, os.fsencode(entry.path), entry.kind, entry.size, entry.mtime_ns, entry.hash),
        *(entry.width, entry.height, entry.date, entry.text, stored_meta(entry.meta), source, container),
        entry.position,
    )
    connection.execute(f"INSERT INTO entries VALUES ({', '.join('?' * len(values))})", values)
