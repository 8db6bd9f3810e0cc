"""Recall of approximate search, against exact search."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jclip.search.index import Index
from jclip.search.scoring import Scorer

K = 10
"""Number of best vectors that count."""
_TIMED = 50
_ROUNDING = 1e-9

Nearest = Callable[[np.ndarray, int], np.ndarray]
"""Function of a query (d,) and a count n, which returns the numbers of about n vectors that are nearest to it."""


@dataclass(frozen=True)
class AnnMeasurements:
    """Measurements of an approximate index.

    Attributes:
      recall: mean share of the exact best 10 among its best 10, for vectors of the index, without themselves.
      text_recall: the same for the texts that were given; None if none were.
      queries: number of vectors of the index that were queries; they were not used for tuning.
      text_queries: number of texts that were queries.
      build_seconds: time of the building.
      query_ms: median time of a query.
      exact_query_ms: median time of an exact query in the index.
    """

    recall: float
    text_recall: float | None
    queries: int
    text_queries: int
    build_seconds: float
    query_ms: float
    exact_query_ms: float


class Queries:
    """Queries with the scores of their exact answers. The first half is for tuning, the second for measuring.

    Its length is the number of queries for measuring.

    Args:
      scorer: scores of the index.
      queries_qd: L2-normalised queries, float32.
      own: numbers of the vectors that the queries are, which do not count as answers; None if they are not vectors of
        the index.
    """

    def __init__(self, scorer: Scorer, queries_qd: np.ndarray, own: np.ndarray | None = None):
        self._scorer, self._queries_qd = scorer, queries_qd
        self._own = np.full(len(queries_qd), -1) if own is None else own
        self._answers = [
            scores[numbers != mine][:K]
            for (numbers, scores), mine in zip(scorer.best_of_each(queries_qd, K + 1), self._own, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._queries_qd) - len(self._queries_qd) // 2

    def tuning_recall(self, nearest: Nearest) -> float:
        """Returns the recall for the tuning queries; 1 if there are none."""
        return self._recall(nearest, range(len(self._queries_qd) // 2))

    def recall(self, nearest: Nearest) -> float:
        """Returns the mean share of the exact best `K` among the best `K` found, for the measuring queries.

        A vector with the same score as an exact one counts.
        """
        return self._recall(nearest, range(len(self._queries_qd) // 2, len(self._queries_qd)))

    def milliseconds(self, nearest: Nearest) -> tuple[float, float]:
        """Returns the median time of an approximate and of an exact query."""
        some = self._queries_qd[-_TIMED:]
        approximate = [
            _time(lambda query_d: self._scorer.ranked(query_d, nearest(query_d, K), K), each) for each in some
        ]
        exact = [_time(lambda query_d: self._scorer.best(query_d, K), each) for each in some]
        return round(statistics.median(approximate), 4), round(statistics.median(exact), 4)

    def _recall(self, nearest: Nearest, places: range) -> float:
        shares = []
        for place in places:
            answers, query_d = self._answers[place], self._queries_qd[place]
            if len(answers):
                numbers = nearest(query_d, K + 1)
                _, scores = self._scorer.ranked(query_d, numbers[numbers != self._own[place]], len(answers))
                shares.append((scores >= answers[-1] - _ROUNDING).sum() / len(answers))
        return float(np.mean(shares)) if shares else 1.0


def queries_of(index: Index, most: int, texts_nd: np.ndarray | None) -> tuple[Queries, Queries]:
    """Returns at most `most` vectors of an index as queries, and the features of texts (n, dim), None for none."""
    scorer = Scorer(index, index.facts.dim)
    own = np.random.default_rng(1).permutation(index.select())[:most]
    rows = Queries(scorer, index.vectors_at(own).astype(np.float32), own)
    return rows, Queries(scorer, np.zeros((0, index.facts.dim), np.float32) if texts_nd is None else texts_nd)


def measured(rows: Queries, texts: Queries, nearest: Nearest, build_seconds: float) -> AnnMeasurements:
    """Measures an approximate index with the queries of `queries_of`."""
    query_ms, exact_query_ms = rows.milliseconds(nearest)
    return AnnMeasurements(
        recall=rows.recall(nearest),
        text_recall=texts.recall(nearest) if len(texts) else None,
        queries=len(rows),
        text_queries=len(texts),
        build_seconds=round(build_seconds, 3),
        query_ms=query_ms,
        exact_query_ms=exact_query_ms,
    )


def _time(search: Callable[[np.ndarray], object], query_d: np.ndarray) -> float:
    start = time.perf_counter()
    search(query_d)
    return (time.perf_counter() - start) * 1000
