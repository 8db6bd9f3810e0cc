"""Small versions of indexed images, for terminals and pages."""

import io

from PIL import Image

from jclip.images.preprocess import Orientation, Preprocessing, opened
from jclip.search.entries import Entry
from jclip.search.originals import read_original

_WHITE = (255, 255, 255)


def thumbnail(entry: Entry, side: int, orientation: Orientation) -> Image.Image:
    """Returns an entry's image in RGB, over white, at most `side` pixels wide and high.

    Raises JclipError if the entry is a text, or its image cannot be read or has changed.
    """
    image = opened(Preprocessing(background=_WHITE, orientation=orientation), read_original(entry), str(entry.path))
    image.thumbnail((side, side))
    return image


def encoded(image: Image.Image, form: str) -> bytes:
    """Returns an image as the bytes of a file: "PNG" or "JPEG"."""
    stream = io.BytesIO()
    image.save(stream, form, quality=85)
    return stream.getvalue()
