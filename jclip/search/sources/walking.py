"""Lists the images and containers of a folder. Hidden files and folders are left out, and loops of links end."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from jclip.images.opening import FOREIGN, MISSING, is_picture_name
from jclip.io.reading import is_hidden
from jclip.search.sources.items import OTHER_FORMATS, Lost

T = TypeVar("T")

UNLISTED = "the folder cannot be listed"


class Found(NamedTuple):
    """Regular file: its path and status."""

    path: bytes
    status: os.stat_result


class Other(NamedTuple):
    """File that is not an image."""

    path: bytes


def walk(folder: bytes, container_at: Callable[[bytes], T | None]) -> Iterator[Found | Other | Lost | T]:
    """Yields what is below a folder, sorted by name, files before folders.

    `container_at` returns a container, which is yielded, and not entered if it is a folder; None for anything else.
    A folder that several links lead to is listed once, under its own path if it is below `folder`. Devices, FIFOs and
    sockets are not opened. A folder that cannot be listed is `Lost`.
    """
    seen: set[tuple[int, int]] = set()
    links = [folder]
    while links:
        waiting = [links.pop(0)]
        while waiting:
            place = waiting.pop()
            try:
                status = os.stat(place)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(place) as found:
                    entries = sorted((entry for entry in found if not _hidden(entry)), key=lambda entry: entry.name)
            except OSError as error:
                yield Lost(place, UNLISTED, error.strerror or str(error), folder=True)
                continue
            inner: list[bytes] = []
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError as error:  # a dangling link, or a loop of links to files
                    if _may_be_image(entry.name):
                        yield Lost(entry.path, MISSING, error.strerror or str(error))
                    continue
                if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                    continue
                if (container := container_at(entry.path)) is not None:
                    yield container
                elif stat.S_ISDIR(status.st_mode):
                    (links if entry.is_symlink() else inner).append(entry.path)
                else:
                    yield from _file(entry, status)
            waiting += reversed(inner)


def _file(entry: "os.DirEntry[bytes]", status: os.stat_result) -> Iterator[Found | Other | Lost]:
    ending = _ending(entry.name)
    if ending in OTHER_FORMATS:
        yield Lost(entry.path, FOREIGN, f".{ending} files are not read")
    elif is_picture_name(os.fsdecode(entry.name)):
        yield Found(entry.path, status)
    else:
        yield Other(entry.path)


def _hidden(entry: "os.DirEntry[bytes]") -> bool:
    return is_hidden(os.fsdecode(entry.name))


def _may_be_image(name: bytes) -> bool:
    return is_picture_name(os.fsdecode(name)) or _ending(name) in OTHER_FORMATS


def _ending(name: bytes) -> str:
    return os.fsdecode(os.path.splitext(name)[1][1:]).lower()
