"""Indexes of images and texts: embedding, and search by text and image.

Names:
  Index: an opened index: vectors with the table of their images and texts.
  Entry: an image or a text of an index.
  embed: embeds images and texts into a new index, or updates one.
  EmbedReport: result of `embed`: numbers of entries, and the images that were skipped.
  Progress: state of `embed` at one moment.
  read_original: returns the encoded bytes of an entry's image.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.search.embedding import EmbedReport as EmbedReport
    from jclip.search.embedding import embed as embed
    from jclip.search.entries import Entry as Entry
    from jclip.search.index import Index as Index
    from jclip.search.originals import read_original as read_original
    from jclip.search.progress import Progress as Progress

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
