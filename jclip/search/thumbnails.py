"""Small versions of indexed images, for terminals and pages."""

import io

from PIL import Image

from jclip.errors import JclipError
from jclip.images.opening import read_picture
from jclip.images.preprocess import Orientation, Preprocessing, opened
from jclip.search.entries import FILE, IMAGE, Entry

_WHITE = (255, 255, 255)


def thumbnail(entry: Entry, side: int, orientation: Orientation) -> Image.Image:
    """Returns an entry's image in RGB, over white, at most `side` pixels wide and high.

    Raises JclipError if the entry is a text, or its image cannot be read.
    """
    if entry.kind != IMAGE:
        raise JclipError(f"{entry.path} is a text: it has no image")
    image = opened(Preprocessing(background=_WHITE, orientation=orientation), _content(entry), str(entry.path))
    image.thumbnail((side, side))
    return image


def encoded(image: Image.Image, form: str) -> bytes:
    """Returns an image as the bytes of a file: "PNG" or "JPEG"."""
    stream = io.BytesIO()
    image.save(stream, form, quality=85)
    return stream.getvalue()


def _content(entry: Entry) -> bytes:
    if entry.origin != FILE:
        raise JclipError(f"{entry.path} is in another file: only images in files of their own are shown")
    return read_picture(entry.path)
