"""Items of sources, and the base of containers, such as tars, that hold many."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jclip.cache.digests import stamp
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.search.entries import IMAGE, MEMBER

OTHER_FORMATS = (
    *("svg", "svgz", "eps", "ai", "wmf", "emf", "jxl", "xcf", "djvu", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf"),
    *("sr2", "dng", "orf", "rw2", "raf", "pef", "srw", "x3f", "3fr", "erf", "kdc", "dcr", "mrw", "raw", "rwl", "iiq"),
)
"""Extensions of images that are not read. They are listed as skipped; other files are only counted."""


_LONGEST_FACT = 1000  # characters
_MOST_VALUES = 100


@dataclass(frozen=True)
class Item:
    """An image or a text of a source.

    Attributes:
      path, kind, size, mtime_ns, text, meta, position: as in `Entry`; `path` in bytes.
      stamp: changes when the content may have changed: size and time of a file, or of its container.
      container: kind and path of the container that has the content; None for a file of its own.
      vector: position of its given vector; None if it is to be encoded.
      hash, width, height, date: as in `Entry`, for an item with a given vector; None if not known.
    """

    path: bytes
    stamp: bytes
    kind: str = IMAGE
    size: int | None = None
    mtime_ns: int | None = None
    text: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    position: int | None = None
    container: tuple[str, bytes] | None = None
    vector: int | None = None
    hash: bytes | None = None
    width: int | None = None
    height: int | None = None
    date: int | None = None


class Lost(NamedTuple):
    """Image that cannot be read, or folder that cannot be listed: its path, the kind of trouble, and details."""

    path: bytes
    reason: str
    detail: str
    folder: bool = False


class Part(NamedTuple):
    """Content of an image: `size` bytes of a file from `offset`, or the whole file if both are None."""

    file: bytes
    offset: int | None = None
    size: int | None = None


Content = Part | bytes


Reader = Callable[[int, int], Content]
"""Function of the position and size of an image in a container; it returns the content, or raises JclipError."""


class Container:
    """File or folder that holds many images or texts: the base of the kinds in `jclip.search.sources.kinds`.

    Attributes:
      kind: name of the kind: `Entry.origin` of its items.
      nested: True if it is read when a folder that is embedded has one in it, too.
      place: path.
    """

    kind: ClassVar[str]
    nested: ClassVar[bool] = True

    def __init__(self, place: Path):
        self.place = place

    @staticmethod
    def recognises(place: Path) -> bool:
        """Returns True if a path seems to be a container of this kind."""
        raise NotImplementedError

    def check_model(self, identity: str, dim: int, orientation: Orientation) -> None:
        """Raises JclipError if its vectors do not fit an index of a model and an orientation."""

    def stamp(self) -> bytes:
        """Returns bytes that change when the container changes. Raises OSError if it is missing."""
        return file_stamp(os.stat(self.place))

    def items(self) -> Iterator[Item | Lost]:
        """Yields its items in order. Raises JclipError if it cannot be read at all."""
        raise NotImplementedError

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yields the reader of its images, which is fast in increasing order of positions."""
        raise JclipError(f"{self.place} has no images: name the files of the images")
        yield  # makes this function a generator

    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """Returns given vectors by position, (n, dim). They may be of any length, or not finite."""
        raise NotImplementedError

    def member(self, name: str | bytes) -> bytes:
        """Returns the path of a member: "holiday.tar::beach/1.jpg"."""
        end = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        return os.fsencode(self.place) + MEMBER.encode() + end


def is_fact(name: str, value: object) -> bool:
    """Returns True if a name and its value are stored in `Entry.meta`: short ones, and lists of them."""
    if len(name) > _LONGEST_FACT:
        return False
    if isinstance(value, list):
        return len(value) <= _MOST_VALUES and all(not isinstance(each, list) and is_fact("", each) for each in value)
    if isinstance(value, str):
        return len(value) <= _LONGEST_FACT
    return isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < 2**63)


def file_stamp(status: os.stat_result) -> bytes:
    """Returns the stamp of a file: its size and time."""
    return f"{status.st_size} {status.st_mtime_ns}".encode()


def folder_stamp(folder: Path, files: Iterable[Path]) -> bytes:
    """Returns the stamp of files in a folder."""
    return hashlib.blake2b(stamp(folder, files).encode(), digest_size=16).digest()
