"""Indexes of images and texts: embedding, and search by text and image.

Names:
  Index: an opened index: vectors with the table of their images and texts.
  Entry: an image or a text of an index.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.search.entries import Entry as Entry
    from jclip.search.index import Index as Index

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
