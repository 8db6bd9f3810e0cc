"""Approximate indexes of tables, with their measured recall."""

import time
from collections.abc import Callable

import numpy as np

from jclip.search.index import Index
from jclip.search.recall import AnnMeasurements, measured, queries_of
from jclip.search.stores.store import Store

_QUERIES = 400
_COPIES = 4
"""Hits that are fetched for each vector that is wanted, because copies share one."""


def build_and_measure(
    index: Index, store: Store, texts_nd: np.ndarray | None, say: Callable[[str], None] = lambda words: None
) -> AnnMeasurements:
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
    rows, texts = queries_of(index, _QUERIES, texts_nd)

    def nearest(query_d: np.ndarray, count: int) -> np.ndarray:
        hits = store.search(query_d, _COPIES * count, exact=False)
        return np.array(list(dict.fromkeys(hit.entry.vector for hit in hits))[:count], np.int64)

    return measured(rows, texts, nearest, seconds)
