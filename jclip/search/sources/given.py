"""Sources as the user gives them: paths, patterns, and lists on standard input."""

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jclip.errors import JclipError
from jclip.images.opening import MISSING, NO_FILE
from jclip.search.sources.items import Container, Lost
from jclip.search.sources.kinds import container_at
from jclip.search.sources.walking import Found, Other, walk

PLACE, PATTERN, LIST = "place", "pattern", "list"
STANDARD_INPUT = "-"
_LARGEST_LIST = 1 << 30  # bytes

Piece = Found | Other | Lost | Container


class Source(NamedTuple):
    """Source of an index.

    Attributes:
      kind: "place" for a path, "pattern" for a glob, or "list" for paths from standard input.
      place: absolute path or pattern; "-" for a list.
    """

    kind: str
    place: bytes

    @property
    def name(self) -> str:
        """Its name for messages."""
        return "the list on standard input" if self.kind == LIST else os.fsdecode(self.place)


class Gone(JclipError):
    """Error for a source that does not exist, or is empty where it was not."""


def given_sources(words: Iterable[str | Path]) -> list[Source]:
    """Returns the sources that words name, each once.

    A word with *, ? or [ that is not an existing path is a pattern; ** matches folders. "-" is a list. Raises
    JclipError for a path that does not exist, or a pattern that matches nothing.
    """
    found = []
    for each in words:
        word = os.fspath(each)
        if word == STANDARD_INPUT:
            found.append(Source(LIST, b"-"))
        elif not word or "\0" in word:
            raise JclipError(f"{word!r} is not a valid path: name a folder or a file")
        elif os.path.lexists(word) or not glob.has_magic(word):
            found.append(Source(PLACE, os.fsencode(os.path.abspath(word))))
        else:
            found.append(Source(PATTERN, os.fsencode(os.path.abspath(word))))
    for source in found:
        check_there(source)
    return list(dict.fromkeys(found))


def check_there(source: Source) -> None:
    """Raises `Gone` if a path does not exist, or a pattern matches nothing; JclipError if a path is a device."""
    if source.kind == PLACE:
        try:
            mode = os.stat(source.place).st_mode
        except OSError as error:
            raise Gone(f"{source.name} cannot be read ({error.strerror}): name a folder or a file") from None
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise JclipError(f"{source.name} is neither a folder nor a regular file: name one of these")
    elif source.kind == PATTERN and not _matches(source):
        raise Gone(f"no file matches {source.name}: correct the pattern")


def read_list(stream: BinaryIO | None = None) -> list[bytes]:
    """Returns the paths in a list, absolute: separated by null characters if it has one, else by line breaks.

    Reads standard input by default. Raises JclipError if the list is longer than a gigabyte.
    """
    data = (stream or sys.stdin.buffer).read(_LARGEST_LIST + 1)
    if len(data) > _LARGEST_LIST:
        raise JclipError("the list on standard input has more than 1 GiB: divide it")
    names = data.split(b"\0") if b"\0" in data else [name.removesuffix(b"\r") for name in data.split(b"\n")]
    return [os.path.abspath(name) for name in names if name]


def pieces(source: Source, listed: Sequence[bytes] = ()) -> Iterator[Piece]:
    """Yields the files and containers of a source, in order; `listed` are the paths of a list."""
    if source.kind == PLACE:
        yield from _at(source.place)
    else:
        for place in listed if source.kind == LIST else _matches(source):
            yield from _at(place)


def _at(place: bytes) -> Iterator[Piece]:
    try:
        status = os.stat(place)
    except OSError as error:
        yield Lost(place, MISSING, error.strerror or str(error))
        return
    container = container_at(Path(os.fsdecode(place)))
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        yield Lost(place, NO_FILE, "it is a device, a FIFO or a socket")
    elif container is not None:
        yield container
    elif stat.S_ISDIR(status.st_mode):
        yield from walk(place, _nested)
    else:
        yield Found(place, status)


def _nested(place: bytes) -> Container | None:
    return container_at(Path(os.fsdecode(place)), nested=True)


def _matches(source: Source) -> list[bytes]:
    return sorted(glob.glob(source.place, recursive=True))
