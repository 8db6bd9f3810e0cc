"""Small indexes for the tests of search: `write_small_index`."""

import hashlib
import os
from pathlib import Path

import numpy as np

from jclip.search.entries import Entry
from jclip.search.index import IndexFacts
from jclip.search.writing import write_index

FACTS = IndexFacts("0" * 64, "small", "/models/small", 4, "apply", "jclip test")


def small_entry(id: int, vector: int, path: str | bytes, **more) -> Entry:
    """Returns an entry with a hash, size and time that follow from its vector."""
    place = Path(os.fsdecode(path))
    digest = hashlib.blake2b(str(vector).encode(), digest_size=16).digest()
    facts = {"size": 10 + vector, "mtime_ns": 10**18 + vector, "hash": digest, "width": 8, "height": 6, "date": 10**9}
    return Entry(id, vector, place, **{**facts, **more})


def write_small_index(folder: Path, vectors_nd, entries, facts: IndexFacts = FACTS) -> Path:
    """Writes an index of any vectors, which are L2-normalised here."""
    vectors_nd = np.asarray(vectors_nd, np.float64)
    write_index(folder, facts, vectors_nd / np.linalg.norm(vectors_nd, axis=1, keepdims=True), entries)
    return folder
