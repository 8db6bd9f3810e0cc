"""Indexed image files, as long as they are what was indexed, and their thumbnails.

A path alone is not trusted: the file may have been replaced, also by a link to another. So a file's digest is compared
with the index before anything of it is sent.
"""

import os
import threading
from collections import OrderedDict

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.search.entries import IMAGE, Entry
from jclip.search.originals import read_original
from jclip.search.thumbnails import encoded, small
from jclip.serve.refusals import Refusal

SIDE = 384
"""Maximum width and height of a thumbnail, in pixels."""


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
            return encoded(small(data, SIDE, orientation, "the image", self._megapixels), "JPEG")
        except JclipError as error:
            raise Refusal(404, "no_thumbnail", str(error)) from None
