"""Indexes of images and texts: embedding, and search by text and image.

Names:
  Index: an opened index: vectors with the table of their images and texts.
  Entry: an image or a text of an index.
  Searcher: search in an index, by text, image and entry, and near duplicates.
  Hit: an entry that was found, with its score.
  Query, Term: a query, and one of its weighted texts and images.
  parse_query: reads a query such as "狗 + 雪 - 人".
  Filter, Comparison: conditions on entries: folder, date, kind and metadata.
  build_ann, open_ann: build and open the approximate index of a large index.
  open_store, push, StoreSearcher: copy an index to a table of pgvector or Milvus, and search there.
  register_store: adds a kind of vector database.
  embed: embeds images and texts into a new index, or updates one.
  EmbedReport: result of `embed`: numbers of entries, and the images that were skipped.
  Progress: state of `embed` at one moment.
  read_original: returns the encoded bytes of an entry's image.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.search.ann import build_ann as build_ann
    from jclip.search.ann import open_ann as open_ann
    from jclip.search.embedding import EmbedReport as EmbedReport
    from jclip.search.embedding import embed as embed
    from jclip.search.entries import Entry as Entry
    from jclip.search.filters import Comparison as Comparison
    from jclip.search.filters import Filter as Filter
    from jclip.search.index import Index as Index
    from jclip.search.originals import read_original as read_original
    from jclip.search.progress import Progress as Progress
    from jclip.search.queries import Query as Query
    from jclip.search.queries import Term as Term
    from jclip.search.queries import parse_query as parse_query
    from jclip.search.searching import Hit as Hit
    from jclip.search.searching import Searcher as Searcher
    from jclip.search.stores.opening import open_store as open_store
    from jclip.search.stores.opening import register_store as register_store
    from jclip.search.stores.pushing import push as push
    from jclip.search.stores.searching import StoreSearcher as StoreSearcher

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
