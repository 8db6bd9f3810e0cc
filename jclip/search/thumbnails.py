"""Small versions of indexed images, for terminals and pages."""

import io

from PIL import Image

from jclip.images.modes import to_convertible
from jclip.images.opening import load, open_header, orientation_of, turned
from jclip.images.preprocess import Orientation, flattened
from jclip.search.entries import Entry
from jclip.search.originals import read_original

_WHITE = (255, 255, 255)


def thumbnail(entry: Entry, side: int, orientation: Orientation) -> Image.Image:
    """Returns an entry's image in RGB, over white, at most `side` pixels wide and high.

    Raises JclipError if the entry is a text, or its image cannot be read or has changed.
    """
    return small(read_original(entry), side, orientation, str(entry.path))


def small(data: bytes, side: int, orientation: Orientation, name: str, megapixels: float | None = None) -> Image.Image:
    """Returns an encoded image in RGB, over white, at most `side` pixels wide and high.

    `megapixels` is its maximum size, by default `jclip.images.opening.max_megapixels()`. Raises JclipError, with the
    name, if it cannot be read.
    """
    image = open_header(data, name, megapixels)
    image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
    load(image, name, megapixels)
    turn = orientation_of(image, data) if orientation == "apply" else 1
    found = flattened(to_convertible(image, name), _WHITE)
    found.thumbnail((side, side))
    return turned(found, turn)


def encoded(image: Image.Image, form: str) -> bytes:
    """Returns an image as the bytes of a file: "PNG" or "JPEG"."""
    stream = io.BytesIO()
    image.save(stream, form, quality=85)
    return stream.getvalue()
