"""Search in an index: by text and image, by an entry, and near duplicates. Exact, unless an approximate index is given.

searcher = Searcher(Index.open("photos.index"), jclip.load("bundle"))
for hit in searcher.search(parse_query("狗 + 雪 - 人"), k=20):
    print(hit.score, hit.entry.path)

Hits are entries: copies of one content are hits of their own, one after the other, with the same score. They are in the
order of score, vector number and entry id, which is the same for every page of results. Late pages of an approximate
search may repeat or miss some.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from jclip.errors import JclipError
from jclip.search.duplicates import groups_of
from jclip.search.entries import Entry
from jclip.search.filters import Filter
from jclip.search.index import Condition, Identified, Index, IndexFacts
from jclip.search.queries import Embedder, Query
from jclip.search.scoring import Scorer

_FILTERS = 8
_AT_ONCE = 500
"""Vectors named in one SQL condition."""


class Hit(NamedTuple):
    """Entry that was found.

    Attributes:
      entry: the image or text.
      score: cosine similarity with the query, or with the first entry of its group of near duplicates.
    """

    entry: Entry
    score: float

    def record(self) -> dict[str, Any]:
        """Returns the hit as `jclip search --json` and the service write it; NaN and infinity become None."""
        entry = self.entry
        return {
            "id": entry.id,
            "path": str(entry.path),
            "kind": entry.kind,
            "score": self.score,
            "width": entry.width,
            "height": entry.height,
            "text": entry.text,
            "meta": _finite(entry.meta),
        }


class SearchModel(Embedder, Identified, Protocol):
    """Model that searches: `jclip.inference.Model`, or an object with its interface."""


class Candidates(Protocol):
    """Approximate index, see `jclip.search.ann`."""

    def nearest(self, query_d: np.ndarray, count: int) -> np.ndarray:
        """Returns the numbers of about `count` vectors that are nearest to a query, (n,) int64."""


class Searcher:
    """Searches one opened index. It may be used from several threads.

    Args:
      index: the index.
      model: the model that made it; None if only vectors and entries are searched for.
      ann: approximate index, which finds candidates for searches without a filter; None for exact search.

    Raises:
      JclipError: another model made the index.
    """

    def __init__(self, index: Index, model: SearchModel | None = None, ann: Candidates | None = None):
        if model is not None:
            index.check_model(model)
        self.index, self._model, self._ann = index, model, ann
        self._scorer = Scorer(index, index.facts.dim)
        self._select = lru_cache(_FILTERS)(index.select)  # for the next page
        self._lock = threading.Lock()
        self._duplicates: tuple[object, list[np.ndarray], dict[int, float]] | None = None

    def search(
        self, query: Query | np.ndarray | Sequence[float], k: int = 10, offset: int = 0, filter: Filter | None = None
    ) -> list[Hit]:
        """Returns hits `offset` to `offset + k` of all that match the filter, the best first.

        Args:
          query: a query; or a vector (dim,) of any length, such as a feature of the same model.
          k: maximum number of hits.
          offset: number of better hits to leave out.
          filter: condition on entries; a search with one is always exact.

        Raises:
          JclipError: the query is not valid or its images cannot be read, or a number is out of range.
        """
        check_page(k, offset)
        return self._ranked(query_vector(query, self.index.facts, self._model), offset + k, filter)[offset:]

    def similar(self, entry_id: int, k: int = 10, offset: int = 0, filter: Filter | None = None) -> list[Hit]:
        """Returns the hits that are most similar to an entry, without itself. Arguments as in `search`.

        Raises:
          JclipError: there is no such entry, or a number is out of range.
        """
        check_page(k, offset)
        vector_d = self.index.vector(self.index.entry(entry_id).vector).astype(np.float32)
        if not np.isfinite(vector_d).all():
            raise JclipError(f"{self.index.folder}: the vector of entry {entry_id} is damaged: run jclip embed again")
        hits = self._ranked(vector_d, offset + k + 1, filter)
        return [hit for hit in hits if hit.entry.id != entry_id][offset : offset + k]

    def near_duplicates(
        self,
        threshold: float = 0.95,
        k: int | None = None,
        offset: int = 0,
        filter: Filter | None = None,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[list[Hit]]:
        """Returns groups of at least two entries whose contents are equal or similar, the largest first.

        Each entry is in one group: see `jclip.search.duplicates`. A group begins with the entry that the scores of the
        others refer to. The grouping is kept for the next call, such as for another page. Its time grows with the
        square of the number of entries.

        Args:
          threshold: least cosine similarity, above 0 and at most 1.
          k: maximum number of groups; None for all.
          offset: number of larger groups to leave out.
          filter: condition on entries.
          report: called with the number of compared vectors, and their total.

        Raises:
          JclipError: a number is out of range.
        """
        if not 0 < threshold <= 1:
            raise JclipError(f"threshold is {threshold:g}, but must be a number above 0, 1 at most: give 0.95")
        check_page(1 if k is None else k, offset)
        with self._lock:
            if self._duplicates is None or self._duplicates[0] != (threshold, filter):
                self._duplicates = ((threshold, filter), *self._grouped(threshold, filter, report))
            _, groups, cosines = self._duplicates
        some = groups[offset : None if k is None else offset + k]
        entries = self._entries([int(number) for group in some for number in group], filter)
        return [
            [Hit(entry, cosines[int(number)]) for number in group for entry in entries[int(number)]] for group in some
        ]

    def _ranked(self, query_d: np.ndarray, count: int, filter: Filter | None) -> list[Hit]:
        """Returns the best `count` hits."""
        among = None if filter is None else self._select(filter)
        available = self.index.vectors if among is None else len(among)
        wanted = count
        while True:
            wanted = min(wanted, available)
            numbers, scores = self._best(query_d, wanted, among)
            entries = self._entries([int(number) for number in numbers], filter)
            hits = [
                Hit(entry, float(score))
                for number, score in zip(numbers, scores, strict=True)
                for entry in entries[int(number)]
            ]
            if len(hits) >= count or wanted == available:
                return hits[:count]
            wanted *= 2  # some were vectors of entries that are gone

    def _best(self, query_d: np.ndarray, count: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._ann is None or among is not None:
            return self._scorer.best(query_d, count, among)
        numbers = self._ann.nearest(query_d, count)
        if len(numbers) < count:  # a page beyond the candidates that one effort finds
            return self._scorer.best(query_d, count)
        return self._scorer.ranked(query_d, numbers, count)

    def _entries(self, numbers: list[int], filter: Filter | None) -> dict[int, list[Entry]]:
        """Returns the entries of vectors that match the filter: {vector: entries by id}."""
        if filter is None:
            return self.index.entries_of(numbers)
        found: dict[int, list[Entry]] = {number: [] for number in numbers}
        for start in range(0, len(numbers), _AT_ONCE):
            for entry in self.index.select_entries(_OfVectors(filter, numbers[start : start + _AT_ONCE])):
                found[entry.vector].append(entry)
        return found

    def _grouped(
        self, threshold: float, filter: Filter | None, report: Callable[[int, int], None]
    ) -> tuple[list[np.ndarray], dict[int, float]]:
        """Returns groups of vectors with at least two entries, the largest first, and each one's cosine similarity."""
        live_n = self.index.select(filter)
        first_n, cosine_n = groups_of(self.index, live_n, threshold, report)
        entries_n = np.ones(len(live_n), np.int64)  # numbers of entries
        copied = self._copied(filter)
        entries_n[np.searchsorted(live_n, list(copied))] = list(copied.values())
        order = np.lexsort((live_n, -cosine_n, first_n != live_n, first_n))
        starts = np.flatnonzero(np.diff(first_n[order], prepend=-1))
        sizes = np.add.reduceat(entries_n[order], starts) if len(starts) else starts
        ends = np.append(starts[1:], len(order))
        largest = [place for place in np.argsort(-sizes, kind="stable") if sizes[place] > 1]
        members = [order[starts[place] : ends[place]] for place in largest]
        cosines = {int(live_n[each]): float(cosine_n[each]) for group in members for each in group}
        return [live_n[group] for group in members], cosines

    def _copied(self, filter: Filter | None) -> dict[int, int]:
        """Returns {vector: number of entries} of the vectors with at least two that match the filter."""
        where, values = filter.where() if filter else ("1", [])
        statement = f"SELECT vector, count(*) FROM entries WHERE {where} GROUP BY vector HAVING count(*) > 1"
        return {vector: int(count) for vector, count in self.index.query(statement, values)}


@dataclass(frozen=True)
class _OfVectors:
    """Condition that an entry matches another condition, and has one of some vectors."""

    other: Condition
    numbers: Sequence[int]

    def where(self) -> tuple[str, list[Any]]:
        where, values = self.other.where()
        return f"({where}) AND vector IN ({', '.join('?' * len(self.numbers))})", [*values, *self.numbers]


def query_vector(
    query: Query | np.ndarray | Sequence[float], facts: IndexFacts, model: SearchModel | None
) -> np.ndarray:
    """Returns the vector that searches an index of these facts, (dim,) float32, L2-normalised.

    Args:
      query: a query; or a vector (dim,) of any length.
      facts: facts of the index.
      model: the model that made it; None if the query is a vector.

    Raises:
      JclipError: the query is not valid, or its images cannot be read.
    """
    if isinstance(query, Query):
        if model is None:
            raise JclipError("this search has no model to encode a query with: give one, or search for a vector")
        return query.vector(model, facts.orientation)
    try:
        vector_d = np.asarray(query, np.float64)
    except (TypeError, ValueError):
        vector_d = np.zeros(0)
    if vector_d.shape != (facts.dim,) or not np.isfinite(vector_d).all() or not vector_d.any():
        raise JclipError(f"the vector of a query must be {facts.dim} finite numbers, not all of them 0: give another")
    vector_d /= np.abs(vector_d).max()  # so that no square overflows
    return (vector_d / np.linalg.norm(vector_d)).astype(np.float32)


def check_page(k: int, offset: int) -> None:
    """Raises JclipError if the size or the offset of a page of results is out of range."""
    for name, value, least in (("k", k, 1), ("offset", offset, 0)):
        if not isinstance(value, int) or value < least:
            raise JclipError(f"{name} is {value!r}, but must be a whole number, {least} or more")


def _finite(value: Any) -> Any:
    """Returns a JSON value in which None replaces numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
