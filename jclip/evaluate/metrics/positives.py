"""Positives of queries in a gallery, many to many. They are stored as pairs, never as a matrix.

Axes: q queries, g gallery, p pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Positives:
    """Set of positive pairs (query, gallery row), as row numbers from 0; duplicates count once.

    `queries` and `gallery` are the numbers of rows. Raises JclipError if a row number is out of range.
    """

    def __init__(self, pairs_p2: Sequence[tuple[int, int]] | npt.NDArray[Any], queries: int, gallery: int):
        pairs_p2 = np.asarray(pairs_p2, np.int64).reshape(-1, 2)
        wrong_p = ((pairs_p2 < 0) | (pairs_p2 >= (queries, gallery))).any(axis=1)
        if wrong_p.any():
            query, row = pairs_p2[wrong_p][0].tolist()
            raise JclipError(
                f"pair ({query}, {row}) is not among {queries} queries and {gallery} in the gallery: number both from 0"
            )
        self.queries, self.gallery = queries, gallery
        self._codes_p = np.unique(pairs_p2[:, 0] * gallery + pairs_p2[:, 1])

    @classmethod
    def from_keys(cls, query_keys_q: npt.NDArray[Any], gallery_keys_g: npt.NDArray[Any]) -> "Positives":
        """Returns the positives of queries and gallery rows with equal keys; any number of rows may share a key."""
        query_keys_q, gallery_keys_g = np.asarray(query_keys_q), np.asarray(gallery_keys_g)
        order_g = np.argsort(gallery_keys_g, kind="stable")
        sorted_g = gallery_keys_g[order_g]
        start_q, stop_q = (np.searchsorted(sorted_g, query_keys_q, side) for side in ("left", "right"))
        counts_q = stop_q - start_q
        rows_p = np.repeat(np.arange(len(query_keys_q)), counts_q)
        nth_p = np.arange(len(rows_p)) - np.repeat(np.cumsum(counts_q) - counts_q, counts_q)
        pairs_p2 = np.stack([rows_p, order_g[np.repeat(start_q, counts_q) + nth_p]], axis=1)
        return cls(pairs_p2, len(query_keys_q), len(gallery_keys_g))

    @property
    def pairs_p2(self) -> Ints:
        """The pairs (query, gallery row), sorted."""
        return np.stack(np.divmod(self._codes_p, max(self.gallery, 1)), axis=1)

    @property
    def counts_q(self) -> Ints:
        """Number of positives of each query."""
        return np.bincount(self.pairs_p2[:, 0], minlength=self.queries)

    def swapped(self) -> "Positives":
        """Returns the same pairs with queries and gallery exchanged."""
        return Positives(self.pairs_p2[:, ::-1], self.gallery, self.queries)

    def take(self, rows: Ints) -> "Positives":
        """Returns the positives of some queries, without duplicates, renumbered in the order of `rows`."""
        place_q = np.full(self.queries, -1)
        place_q[rows] = np.arange(len(rows))
        pairs_p2 = self.pairs_p2
        pairs_p2[:, 0] = place_q[pairs_p2[:, 0]]
        return Positives(pairs_p2[pairs_p2[:, 0] >= 0], len(rows), self.gallery)

    def of(self, rows_q: Ints, columns_qk: Ints) -> Bools:
        """Returns (q, k): True where the gallery row columns_qk[i] is a positive of the query rows_q[i]."""
        codes_qk = rows_q[:, None] * self.gallery + columns_qk
        places_qk = np.searchsorted(self._codes_p, codes_qk)
        return np.asarray(np.append(self._codes_p, -1)[places_qk] == codes_qk)

    def rows(self, rows_q: Ints) -> Bools:
        """Returns (q, g): True where a gallery row is a positive of the query rows_q[i]."""
        columns_1g = np.arange(self.gallery)[None, :]
        return self.of(rows_q, np.broadcast_to(columns_1g, (len(rows_q), self.gallery)))
