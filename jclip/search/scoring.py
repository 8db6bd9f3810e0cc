"""Exact scores of an index's vectors: memory-mapped float16 blocks, multiplied on jax's device.

Axes: n vectors, q queries, d features.

On a CPU, XLA converts and multiplies a block of 2M numbers inside the processor's cache. `benchmarks/search_speed.py`
compares that with float32 vectors in NumPy. On an accelerator the blocks stay on the device if half of its free memory
can hold them.

The best vectors are scored again in float64. So equal vectors have equal scores, and scores and order depend neither
on the device nor on a filter. Ties are in the order of the vector numbers.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

_CPU_BLOCK, _DEVICE_BLOCK = 1 << 21, 1 << 26
"""Numbers in a block: on a CPU a larger block leaves the cache and takes five times as long (measured)."""
_LEAST_ROWS = 64
_AHEAD = 8
"""Blocks that are multiplied while earlier ones are sorted."""
_TOGETHER = 64
"""Queries in one pass over the vectors."""
_MARGIN = 1e-5
"""Maximum rounding error of a float32 score of L2-normalised vectors of a few thousand features."""
_FEW = 8
"""Selected vectors are gathered if they are at most this part of all; gathering costs more than multiplying."""


class Vectors(Protocol):
    """Part of an index that is needed here, see `jclip.search.index.Index`."""

    @property
    def vectors(self) -> int:
        """Number of vectors."""

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (number of the first vector, float16 (n, d)) of blocks of at most `rows` vectors."""

    def vectors_at(self, numbers: np.ndarray) -> np.ndarray:
        """Returns float16 (n, d) of the vectors with these numbers."""


class Scorer:
    """Scores of all vectors of an index, or of some, for queries.

    Args:
      index: the vectors.
      dim: number of features d.
    """

    def __init__(self, index: Vectors, dim: int):
        self._index, self._dim = index, dim
        self._on_cpu = jax.default_backend() == "cpu"
        self.rows = max(_LEAST_ROWS, (_CPU_BLOCK if self._on_cpu else _DEVICE_BLOCK) // dim)
        self._resident: list[tuple[np.ndarray, Any]] | None = None

    def best(self, query_d: np.ndarray, count: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of the `count` best vectors, best first, and their scores, as int64 and float64.

        `query_d` is float32. `among` are the sorted numbers of the vectors that count; None for all.
        """
        return self.best_of_each(query_d[None], count, among)[0]

    def best_of_each(
        self, queries_qd: np.ndarray, count: int, among: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the same as `best` for each query of a batch."""
        answers = []
        for start in range(0, len(queries_qd), _TOGETHER):
            some_qd = queries_qd[start : start + _TOGETHER]
            found = [Best(count) for _ in some_qd]
            for numbers, scores_qn in self.scores(some_qd, among):
                for best, scores_n in zip(found, scores_qn, strict=True):
                    best.add(numbers, scores_n)
            answers += [self.ranked(query_d, best.numbers, count) for query_d, best in zip(some_qd, found, strict=True)]
        return answers

    def ranked(self, query_d: np.ndarray, numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the `count` best of some vectors and their scores, computed in float64; omits damaged vectors."""
        query_d = query_d.astype(np.float64)
        with np.errstate(invalid="ignore"):  # of a damaged vector
            parts = [
                (self._index.vectors_at(numbers[start : start + self.rows]).astype(np.float64) * query_d).sum(axis=1)
                for start in range(0, len(numbers), self.rows)
            ]
        scores = np.concatenate(parts) if parts else np.zeros(0)
        numbers, scores = numbers[np.isfinite(scores)], scores[np.isfinite(scores)]
        order = np.lexsort((numbers, -scores))[:count]
        return numbers[order], scores[order]

    def scores(
        self, queries_qd: np.ndarray, among: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (vector numbers, float32 scores (q, n)) of each block."""
        if among is not None and len(among) * _FEW <= self._index.vectors:
            blocks, among = self._gathered(among), None
        else:
            blocks = self._blocks()
        waiting: deque[tuple[np.ndarray, jax.Array]] = deque()
        for numbers, block_nd in blocks:
            waiting.append((numbers, _products(queries_qd, block_nd)))  # returns before it is computed
            if len(waiting) > _AHEAD:
                yield _selected(*waiting.popleft(), among)
        for each in waiting:
            yield _selected(*each, among)

    def _gathered(self, among: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (numbers, padded vectors) of some vectors."""
        for start in range(0, len(among), self.rows):
            numbers = among[start : start + self.rows]
            yield numbers, self._padded(self._index.vectors_at(numbers))

    def _blocks(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Yields (numbers, padded vectors) of all vectors, of which an accelerator keeps what fits."""
        if self._resident is not None:
            yield from self._resident
            return
        kept: list[tuple[np.ndarray, Any]] | None = [] if self._fits() else None
        for first, block_nd in self._index.blocks(self.rows):
            numbers, padded = np.arange(first, first + len(block_nd)), self._padded(block_nd)
            if kept is not None:
                padded = jax.device_put(padded)
                kept.append((numbers, padded))
            yield numbers, padded
        self._resident = kept

    def _fits(self) -> bool:
        if self._on_cpu:  # the operating system keeps the pages of the files
            return False
        memory = jax.devices()[0].memory_stats() or {}
        free = memory.get("bytes_limit", 0) - memory.get("bytes_in_use", 0)
        return self._index.vectors * self._dim * 2 <= free // 2

    def _padded(self, block_nd: np.ndarray) -> np.ndarray:
        """Returns a block with zeros up to a power of two or the usual size, so that few shapes are compiled."""
        length = len(block_nd)
        rows = min(self.rows, max(_LEAST_ROWS, 1 << (length - 1).bit_length()))
        if length >= rows:
            return block_nd
        return np.concatenate([block_nd, np.zeros((rows - length, self._dim), block_nd.dtype)])


class Best:
    """Numbers of the vectors that may be among the `count` best, rounding included. Vectors are added in blocks."""

    def __init__(self, count: int):
        self._count, self._floor = count, -np.inf
        self.numbers, self._scores = np.zeros(0, np.int64), np.zeros(0, np.float32)

    def add(self, numbers: np.ndarray, scores: np.ndarray) -> None:
        """Adds vectors with their float32 scores."""
        keep = np.flatnonzero((scores >= self._floor) & np.isfinite(scores))  # damaged vectors give infinity or NaN
        if not len(keep):
            return
        self.numbers = np.concatenate([self.numbers, numbers[keep]])
        self._scores = np.concatenate([self._scores, scores[keep]])
        surplus = len(self.numbers) - self._count
        if surplus > 0:
            self._floor = np.partition(self._scores, surplus)[surplus] - _MARGIN
            keep = np.flatnonzero(self._scores >= self._floor)
            self.numbers, self._scores = self.numbers[keep], self._scores[keep]


def _selected(numbers: np.ndarray, scores_qn: jax.Array, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers and scores of a block's vectors that are among some, without the padding."""
    found_qn = np.asarray(scores_qn)[:, : len(numbers)]
    if among is None:
        return numbers, found_qn
    low, high = np.searchsorted(among, (numbers[0], numbers[-1] + 1))
    return among[low:high], found_qn[:, among[low:high] - numbers[0]]


@jax.jit
def _products(queries_qd: jax.Array, block_nd: jax.Array) -> jax.Array:
    return jnp.einsum("qd,nd->qn", queries_qd, block_nd.astype(jnp.float32), precision="highest")
