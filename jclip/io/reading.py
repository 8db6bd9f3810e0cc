"""Reads untrusted files: only regular ones of limited size."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jclip.errors import JclipError, unreadable
from jclip.units import format_size


class Refused(JclipError):
    """Refusal to read a file that is not regular, or too large. `reason`, without the file's name, is for reports."""

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason


def open_regular(file: Path) -> BinaryIO:
    """Opens a regular file, or a link to one, for reading: a FIFO would block, and a device may be endless.

    Raises Refused for other kinds, OSError if it cannot be opened, and ValueError if its name holds a null character.
    """
    _check_regular(file, os.stat(file).st_mode)
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(file, os.fstat(handle).st_mode)  # the file may have been replaced meanwhile
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(file: Path, limit: int) -> bytes:
    """Returns the contents of a regular file of at most `limit` bytes.

    Raises Refused if it is not a regular file, or is larger; OSError if it is missing, a folder, or cannot be read;
    and ValueError if its name holds a null character.
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(size + 1) if size <= limit else None  # a read of `limit` bytes would allocate them first
        if data is not None and len(data) > size:  # files in /proc report size 0
            data += stream.read(limit + 1 - len(data))
    if data is None or len(data) > limit:
        reason = f"a file of more than {format_size(limit)}"
        raise Refused(f"{file} is {reason}: name a smaller one", reason)
    return data


LARGEST_PICTURE = 256 << 20
"""Maximum number of bytes of an encoded image; a larger file is a mistake or an attack."""

TOO_LARGE = f"an image file of more than {format_size(LARGEST_PICTURE)}"
"""Reason that reports give for a larger image file."""


_SYSTEM = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "Thumbs.db", "desktop.ini")


def is_hidden(name: str) -> bool:
    """Returns True for the name of a hidden file or folder, or one that a system adds to folders.

    >>> [is_hidden(name) for name in ("cat.jpg", "._cat.jpg", ".git", "@eaDir", "Thumbs.db")]
    [False, True, True, True, True]
    """
    return name.startswith(".") or name in _SYSTEM


def files_under(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and its subfolders, sorted by name.

    Follows links to folders, and lists every folder once, so that loops end. Raises JclipError if a folder cannot be
    listed.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        each = waiting.pop()
        if not each.is_dir():
            yield each
            continue
        try:
            found = each.stat()
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                waiting += sorted(each.iterdir(), reverse=True)
        except OSError as error:
            raise unreadable(each, error) from None


def _check_regular(file: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
        reason = f"{next((name for test, name in kinds if test(mode)), 'a device')}, not a regular file"
        raise Refused(f"{file} is {reason}: name a file", reason)
