"""Interface of a vector database that holds copies of indexes.

A table has one row for each entry of the indexes pushed to it. Each row names its source, the index that it came from,
so that several machines can push their indexes to one table, and each removes only its own rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jclip.search.entries import Entry
from jclip.search.filters import Filter
from jclip.search.index import IndexFacts
from jclip.search.searching import Hit
from jclip.search.stores.addresses import Address


@dataclass(frozen=True)
class Row:
    """Row of a table.

    Attributes:
      source: name of the index.
      entry: entry of the index.
      vector: its vector, float16 (dim,).
    """

    source: str
    entry: Entry
    vector: np.ndarray

    @property
    def state(self) -> int:
        """Digest of the entry and the vector, 64 bits: another one means that the row has changed."""
        digest = hashlib.blake2b(repr(self.entry).encode("utf-8", "surrogatepass"), digest_size=8)
        digest.update(self.vector.astype("<f2").tobytes())
        return int.from_bytes(digest.digest(), "little", signed=True)


class Store(Protocol):
    """Table in a vector database. Every method raises JclipError if the database refuses, or does not answer.

    Attributes:
      address: place of the table. If it names a source, a search finds only the rows of that source.
    """

    address: Address

    def facts(self) -> IndexFacts | None:
        """Returns the facts of the indexes in the table; None if there is no such table."""

    def create(self, facts: IndexFacts) -> None:
        """Creates the table. Does nothing if it exists."""

    def states(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and states of a source's rows, both int64 (n,), by id."""

    def upsert(self, rows: Sequence[Row]) -> None:
        """Writes rows, all or none. A row of the same source and id is replaced."""

    def delete(self, source: str, ids: Sequence[int]) -> None:
        """Deletes rows of a source. Ids without a row are ignored."""

    def search(
        self, query_d: np.ndarray, k: int, offset: int = 0, chosen: Filter | None = None, exact: bool = True
    ) -> list[Hit]:
        """Returns hits by falling similarity to a query; those of equal similarity by source, vector and id.

        Args:
          query_d: L2-normalised vector, float32 (dim,).
          k: maximum number of hits, after the first `offset`.
          chosen: condition on the entries.
          exact: compare with every row; otherwise use the approximate index, if there is one.
        """

    def build(self) -> None:
        """Builds an approximate index, and replaces an older one. The database keeps it up to date."""

    def is_approximate(self) -> bool:
        """Returns True if the table has an approximate index."""

    def close(self) -> None:
        """Closes the connection."""
