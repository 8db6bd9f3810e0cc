"""Approximate indexes of tables, with their measured recall."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jclip.search.index import Index
from jclip.search.recall import Queries
from jclip.search.scoring import Scorer
from jclip.search.stores.store import Store

_QUERIES = 400
_COPIES = 4
"""Hits that are fetched for each vector that is wanted, because copies share one."""


@dataclass(frozen=True)
class StoreAnn:
    """Facts of the approximate index of a table.

    Attributes:
      recall: mean share of the exact best 10 among its best 10, for vectors of the index, without themselves.
      text_recall: the same for the texts that were given; None if none were.
      queries: number of vectors of the index that were queries.
      text_queries: number of texts that were queries.
      build_seconds: time of the building.
      query_ms: median time of a query.
    """

    recall: float
    text_recall: float | None
    queries: int
    text_queries: int
    build_seconds: float
    query_ms: float


def build_and_measure(
    index: Index, store: Store, texts_nd: np.ndarray | None, say: Callable[[str], None] = lambda words: None
) -> StoreAnn:
    """Builds the approximate index of a table, and measures it against exact search in the index.

    Args:
      index: the index, which has been pushed.
      store: the table; its address names the source of the index.
      texts_nd: features of texts that people search for, (n, dim); None for none.
      say: called with words about the progress.
    """
    say("building the approximate index")
    start = time.perf_counter()
    store.build()
    seconds = time.perf_counter() - start
    say("measuring recall")
    scorer, live = Scorer(index, index.facts.dim), index.select()
    own = np.random.default_rng(1).permutation(live)[:_QUERIES]
    rows = Queries(scorer, index.vectors_at(own).astype(np.float32), own)
    texts = Queries(scorer, np.zeros((0, index.facts.dim), np.float32) if texts_nd is None else texts_nd)

    def nearest(query_d: np.ndarray, count: int) -> np.ndarray:
        hits = store.search(query_d, _COPIES * count, exact=False)
        return np.array(list(dict.fromkeys(hit.entry.vector for hit in hits))[:count], np.int64)

    return StoreAnn(
        recall=rows.recall(nearest),
        text_recall=texts.recall(nearest) if len(texts) else None,
        queries=len(rows),
        text_queries=len(texts),
        build_seconds=round(seconds, 3),
        query_ms=rows.milliseconds(nearest)[0],
    )
