"""Search in a table of a vector database, with the queries and filters of `jclip.search`."""

from collections.abc import Sequence

import numpy as np

from jclip.errors import JclipError
from jclip.plain import shown
from jclip.search.filters import Filter
from jclip.search.queries import Query
from jclip.search.searching import Hit, SearchModel, check_page, query_vector
from jclip.search.stores.store import Store


class StoreSearcher:
    """Searches one table. Hits are those that `jclip.search.searching.Searcher` finds in the index.

    Args:
      store: the table.
      model: the model that made the vectors; None if only vectors are searched for.
      exact: compare with every row; otherwise use the approximate index of the table, if it has one.

    Raises:
      JclipError: there is no such table, or another model made its vectors.
    """

    def __init__(self, store: Store, model: SearchModel | None = None, exact: bool = False):
        facts = store.facts()
        if facts is None:
            raise JclipError(f"{store.address}: there is no such table; push an index: jclip index INDEX --to ADDRESS")
        if model is not None and model.identity != facts.model_identity:
            raise JclipError(
                f"{store.address} was made with another model ({shown(facts.model_name)}, from "
                f"{shown(facts.model_source)}): use that one"
            )
        self.facts = facts
        self._store, self._model, self._exact = store, model, exact

    def search(
        self, query: Query | np.ndarray | Sequence[float], k: int = 10, offset: int = 0, filter: Filter | None = None
    ) -> list[Hit]:
        """Returns hits `offset` to `offset + k` of all that match the filter, the best first.

        Args:
          query: a query; or a vector (dim,) of any length, such as a feature of the same model.
          k: maximum number of hits.
          offset: number of better hits to leave out.
          filter: condition on entries.

        Raises:
          JclipError: the query is not valid or its images cannot be read, a number is out of range, or the database
            refuses or goes away.
        """
        check_page(k, offset)
        query_d = query_vector(query, self.facts, self._model)
        return self._store.search(query_d, k, offset, filter, exact=self._exact)
