"""Search in a table of a vector database, with the queries and filters of `jclip.search`."""

from collections.abc import Sequence

import numpy as np

from jclip.errors import JclipError
from jclip.search.filters import Filter
from jclip.search.index import IndexFacts
from jclip.search.queries import Query
from jclip.search.searching import Hit, SearchModel, check_page, query_vector
from jclip.search.stores.store import Store


def known_facts(store: Store) -> IndexFacts:
    """Returns the facts of a table. Raises JclipError if there is no such table."""
    facts = store.facts()
    if facts is None:
        raise JclipError(f"{store.address}: there is no such table; push an index: jclip index INDEX --to ADDRESS")
    return facts


class StoreSearcher:
    """Searches one table. Hits are those that `jclip.search.searching.Searcher` finds in the index.

    Args:
      store: the table.
      model: the model that made the vectors; None if only vectors are searched for.
      ann: use the approximate index of the table.

    Raises:
      JclipError: there is no such table, another model made its vectors, or it has no approximate index.
    """

    def __init__(self, store: Store, model: SearchModel | None = None, ann: bool = False):
        facts = known_facts(store)
        if model is not None:
            facts.check_model(model.identity, store.address, "use that one")
        if ann and not store.is_approximate():
            raise JclipError(f"{store.address} has no approximate index: run jclip index INDEX --to ADDRESS --ann")
        self.facts = facts
        self._store, self._model, self._ann = store, model, ann

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
        return self._store.search(query_d, k, offset, filter, exact=not self._ann)
