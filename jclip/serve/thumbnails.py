"""Indexed image files, as long as they are what was indexed, and their thumbnails.

A path alone is not trusted: the file may have been replaced, also by a link to another. So a file's digest is compared
with the index before anything of it is sent.
"""

import io
import os
import threading
from collections import OrderedDict

from PIL import Image

from jclip.errors import JclipError
from jclip.images.modes import to_convertible
from jclip.images.opening import load, open_header, orientation_of, turned
from jclip.images.preprocess import Orientation
from jclip.search.entries import IMAGE, Entry
from jclip.search.originals import read_original
from jclip.serve.refusals import Refusal

SIDE = 384
"""Maximum width and height of a thumbnail, in pixels."""
_QUALITY = 85
_WHITE = (255, 255, 255)


def original(entry: Entry) -> bytes:
    """Returns the content of an indexed image. Raises Refusal, 404, if it is not what was indexed any more."""
    if entry.kind != IMAGE or entry.hash is None:
        raise Refusal(404, "no_image", f"entry {entry.id} is not an image, or only its vector is known")
    try:
        return read_original(entry)
    except JclipError:
        raise Refusal(
            404, "file_changed", f"the file of entry {entry.id} is gone or has changed: run jclip embed --update"
        ) from None


def is_unchanged(entry: Entry) -> bool:
    """Returns True if the size and time of an entry's file are those that were indexed."""
    try:
        found = os.stat(entry.path)
    except (OSError, ValueError):  # also for a member of a container
        return False
    return (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)


class Thumbnails:
    """Thumbnails as JPEG, of which the last ones are kept in memory.

    Args:
      most: maximum number of bytes to keep.
      megapixels: maximum size of an image, in millions of pixels.
    """

    def __init__(self, most: int, megapixels: float):
        self._most, self._megapixels, self.held = most, megapixels, 0
        self._kept: OrderedDict[tuple[bytes | None, Orientation], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, entry: Entry, orientation: Orientation) -> bytes:
        """Returns the thumbnail of an entry's image. Raises Refusal, 404, if its file cannot be read."""
        name = (entry.hash, orientation)
        with self._lock:
            known = self._kept.get(name)
            if known is not None:
                self._kept.move_to_end(name)
        if known is not None and is_unchanged(entry):
            return known
        data = original(entry)
        if known is not None:
            return known
        made = self._made(data, orientation)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = made
                self.held += len(made)
            while self.held > self._most:
                self.held -= len(self._kept.popitem(last=False)[1])
        return made

    def _made(self, data: bytes, orientation: Orientation) -> bytes:
        try:
            image = open_header(data, "the image", self._megapixels)
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a large JPEG is decoded at a fraction of its size
            load(image, "the image", self._megapixels)
            turn = orientation_of(image, data) if orientation == "apply" else 1
            small = turned(_on_white(to_convertible(image, "the image")), turn)
            small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        except JclipError as error:
            raise Refusal(404, "no_thumbnail", str(error)) from None
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=_QUALITY)
        return stream.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*_WHITE, 255)), image)
    return image.convert("RGB")
