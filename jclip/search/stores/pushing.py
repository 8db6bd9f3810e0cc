"""Copies an index to a table of a vector database.

The index stays the source of truth. A push compares the states of all entries with those of the table, writes what is
new or has changed, and deletes what has gone. So it can be repeated, and one that was interrupted goes on.
"""

import itertools
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jclip.errors import JclipError
from jclip.plain import shown
from jclip.search.index import Index, IndexFacts
from jclip.search.stores.addresses import Address
from jclip.search.stores.rows import clean
from jclip.search.stores.store import Row, Store

_ROWS = 500
"""Rows of one write; a write succeeds or fails as a whole."""


@dataclass(frozen=True)
class Pushed:
    """Numbers of rows that a push has written and deleted, and of those that were up to date."""

    written: int
    deleted: int
    unchanged: int


def push(index: Index, store: Store, report: Callable[[int], None] = lambda done: None) -> Pushed:
    """Makes a table hold the entries of an index. Entries of other sources in the table are not touched.

    Args:
      index: the index.
      store: the table; it is created if necessary.
      report: called with the number of entries that are done.

    Raises:
      JclipError: the table holds vectors of another model, or the database refuses or goes away. What was written is
        kept, and the next push goes on.
    """
    found = store.facts()
    if found is None:
        store.create(index.facts)
    else:
        _check_facts(index, found, store)
    source = source_of(store.address, index.folder)
    ids_n, states_n = store.states(source)
    is_left_n = np.ones(len(ids_n), bool)
    written = unchanged = done = 0
    for rows in _rows(index, source):
        places = np.searchsorted(ids_n, [row.entry.id for row in rows])
        changed = []
        for row, place in zip(rows, places, strict=True):
            is_there = place < len(ids_n) and ids_n[place] == row.entry.id
            if is_there:
                is_left_n[place] = False
            if not is_there or states_n[place] != row.state:
                changed.append(row)
        if changed:
            store.upsert(changed)
        written += len(changed)
        unchanged += len(rows) - len(changed)
        done += len(rows)
        report(done)
    gone = ids_n[is_left_n].tolist()
    for start in range(0, len(gone), _ROWS):
        store.delete(source, gone[start : start + _ROWS])
    return Pushed(written, len(gone), unchanged)


def source_of(address: Address, folder: Path) -> str:
    """Returns the name under which an index in a folder is pushed: that in the address, or "MACHINE:PATH"."""
    return str(clean(address.source or f"{platform.node()}:{folder.absolute()}"))


def _rows(index: Index, source: str) -> Iterator[list[Row]]:
    entries = index.all_entries()
    while some := list(itertools.islice(entries, _ROWS)):
        vectors_nd = index.vectors_at([entry.vector for entry in some])
        yield [Row(source, entry, vector_d) for entry, vector_d in zip(some, vectors_nd, strict=True)]


def _check_facts(index: Index, found: IndexFacts, store: Store) -> None:
    mine = index.facts
    if (found.model_identity, found.dim) != (mine.model_identity, mine.dim):
        raise JclipError(
            f"{store.address} holds vectors of another model ({shown(found.model_name)}), with {found.dim} numbers "
            f"each; this index is of {shown(mine.model_name)}, with {mine.dim}: choose another table with ?table=NAME"
        )
    if found.orientation != mine.orientation:
        raise JclipError(
            f"{store.address} holds images whose EXIF orientation was {_TREATED[found.orientation]}, and in this index "
            f"it was {_TREATED[mine.orientation]}: choose another table with ?table=NAME"
        )


_TREATED = {"apply": "applied", "ignore": "ignored"}
