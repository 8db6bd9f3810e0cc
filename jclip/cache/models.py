"""Converted models in the cache: folders that are made once, by one process, and used by many.

An entry is a folder with what was made in it, and with a record of what it is. While a process makes it, it holds a
lock on a file beside it. A process that uses an entry holds a shared lock on the entry until it ends.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.cache.folder import cache_folder
from jclip.errors import JclipError
from jclip.io.files import check_folder, recover_all, remove_folder, whole_folder
from jclip.io.json_files import read_object
from jclip.plain import as_json

try:
    import fcntl
except ImportError:  # Windows has other locks: two processes may make an entry twice, and the last one counts
    fcntl = None  # type: ignore[assignment]

CONTENT = "bundle"
"""Name of the folder in an entry that is made."""

_MODELS, _RECORD = "models", "source.json"
_MOMENT = 0.05  # seconds
_used: dict[Path, int] = {}
"""Shared locks of this process."""


@dataclass(frozen=True)
class Entry:
    """Entry of the cache.

    Attributes:
      folder: folder of the entry.
      record: JSON-ready facts of what it is.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def content(self) -> Path:
        """Folder that was made."""
        return self.folder / CONTENT

    @property
    def last_used(self) -> float:
        """Time of the last use, in seconds since the epoch."""
        for place in (self.folder / _RECORD, self.folder):
            with suppress(FileNotFoundError):  # a damaged entry, or another process has removed it
                return place.stat().st_mtime
        return 0.0


def place_of(name: str) -> Path:
    """Returns the folder of an entry's content, which may not exist."""
    return cache_folder() / _MODELS / name / CONTENT


def read_entry(name: str) -> Entry | None:
    """Returns an entry; None if it does not exist, or its record is damaged."""
    folder = place_of(name).parent
    try:
        return Entry(folder, read_object(folder / _RECORD))
    except JclipError:
        return None


def entries() -> list[Entry]:
    """Returns all entries, those with a damaged record included, by name."""
    folders = (cache_folder() / _MODELS).glob("[!.]*/")
    return [read_entry(folder.name) or Entry(folder, {}) for folder in sorted(folders)]


def made_once(
    name: str,
    is_valid: Callable[[Entry], bool],
    make: Callable[[Path], dict[str, Any]],
    waiting: Callable[[], None],
) -> Path:
    """Returns the folder of an entry's content, which is made if it does not exist. Marks it as used.

    Of several processes, one makes it and the others wait. An entry that is not valid is replaced.

    Args:
      name: name of the entry.
      is_valid: returns False for an entry that is damaged.
      make: writes the content into a new folder and returns the entry's record.
      waiting: called before waiting for another process.

    Raises:
      JclipError: the cache cannot be written, or `make` raises it. An older entry then stays.
    """
    content = place_of(name)
    folder = content.parent

    def is_made() -> bool:
        entry = read_entry(name)
        return entry is not None and is_valid(entry)

    while True:
        if not is_made():
            check_folder(folder.parent)
            with _making(folder, waiting):
                if not is_made():
                    recover_all(folder.parent)
                    with whole_folder(folder) as partial:
                        record = make(partial / CONTENT)
                        (partial / _RECORD).write_text(as_json(record, indent=1) + "\n", encoding="utf-8")
        if _use(folder):
            return content
        time.sleep(_MOMENT)


def clear(entry: Entry) -> None:
    """Removes an entry. Raises JclipError if a process makes or uses it, or it cannot be removed."""
    file = _lock_file(entry.folder)
    with _locked(file), _locked(entry.folder):
        remove_folder(entry.folder)
        with suppress(OSError):  # a file that holds nothing
            file.unlink()


def clear_leftovers() -> None:
    """Removes what killed processes left of entries that they were making."""
    recover_all(cache_folder() / _MODELS)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def _making(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of an entry that is being made, within the block."""
    file = _lock_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            with suppress(OSError):  # the file system has no locks
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiting()
                    fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file or folder within the block. Raises JclipError if another process has a lock."""
    try:
        lock = os.open(place, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                folder = place.with_name(place.name.removeprefix(".").removesuffix(".lock"))
                raise JclipError(f"{folder} is in use by another process: end that one first") from None
            except OSError:  # the file system has no locks
                pass
        yield
    finally:
        os.close(lock)


def _use(folder: Path) -> bool:
    """Takes a shared lock on an entry, until this process ends. Returns False if another process is removing it."""
    with suppress(OSError):  # a cache that is only read
        os.utime(folder / _RECORD)
    if fcntl is None:
        return True
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        used = os.path.samestat(os.fstat(lock), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        used = False
    except OSError:  # the file system has no locks
        used = True
    before = _used.pop(folder, None) if used else lock
    if used:
        _used[folder] = lock
    if before is not None:
        os.close(before)
    return used
