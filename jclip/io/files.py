"""Files and folders that are whole or absent, whatever happens while they are written."""

import ctypes
import errno
import glob
import hashlib
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jclip.errors import JclipError

try:
    import fcntl
except ImportError:  # Windows has other locks
    fcntl = None  # type: ignore[assignment]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_FULL_WORDS = ("RESOURCE_EXHAUSTED", "No space left", "quota exceeded")
_HERE, _SWAP = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_NOT_DISK = ("memory", "hbm")  # a device that is full says RESOURCE_EXHAUSTED too


def check_free(place: Path) -> None:
    """Checks that nothing has this name; for asking before long work.

    Raises:
      JclipError: something has.
    """
    if os.path.lexists(place):  # a link to nowhere is something too
        raise JclipError(f"{place} is there already: move it away, or choose another name")


def check_utf8(place: Path, library: str = "array_record") -> None:
    """Checks that a path is UTF-8, for some libraries open no other.

    Args:
      place: the path.
      library: that would open it.

    Raises:
      JclipError: it has bytes that are not.
    """
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise JclipError(f"{place} is not a name in UTF-8, and {library} opens no other: choose another") from None


def check_writable(place: Path) -> None:
    """Checks, before long work, that a new file or folder of this name can be made: by making one beside it.

    Raises:
      JclipError: something has the name, or nothing can be written there.
    """
    _sweep(place)
    check_free(place)
    with _beside(place, Path.mkdir):
        pass


def check_folder(folder: Path) -> None:
    """Checks, before long work, that files can be made in a folder, which may be there. Nothing is left behind.

    Raises:
      JclipError: it cannot be made, or not written to.
    """
    try:
        with suppress(FileNotFoundError):
            folder.stat()
    except OSError as error:
        raise JclipError(f"{folder} cannot be made ({error.strerror}): choose another place") from None
    # No folder is made: to remove it again could hit another run that has just come.
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    with _beside(there / "unfinished", Path.touch, folder):
        pass


def recover(place: Path) -> None:
    """Removes what processes that were killed left of `place`; puts a folder back that they had moved away."""
    _sweep(place)


@contextmanager
def whole_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """A new folder to write into, beside `folder`, whose name it takes when the block ends well.

    When the block raises, or the process is interrupted in it, the new folder goes and what stood there stays. What a
    process leaves that is killed, the next one that writes there removes; an older folder that it had just moved out of
    the way, it puts back.

    Args:
      folder: the name in the end; its parents are made.
      replace: whether it may take the place of an older one.

    Raises:
      JclipError: the place is taken and must not be replaced, or it cannot be written to.
    """
    _sweep(folder)
    if not (replace and folder.is_dir()):
        check_free(folder)
    with _beside(folder, Path.mkdir) as partial:
        yield partial
        if replace and folder.is_dir():
            _exchange(partial, folder)
        else:
            check_free(folder)
            partial.rename(folder)


@contextmanager
def whole_file(file: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new file to write, beside `file`, whose name it takes when the block ends well; otherwise it goes.

    Of several processes that write the same file one is first; the others fail, or replace it.

    Args:
      file: the name in the end; its parents are made.
      replace: whether it may take the place of an older one.

    Raises:
      JclipError: the place is taken and must not be replaced, or it cannot be written to.
    """
    _sweep(file)
    if not replace:
        check_free(file)
    with _beside(file, Path.touch) as partial:
        yield partial
        if replace:
            partial.replace(file)
        else:
            _name(partial, file)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no space left, of whatever type it is."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(error)
        if any(words in text for words in _FULL_WORDS) and not any(words in text.lower() for words in _NOT_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


class Unfinished(JclipError):
    """Work was interrupted that can go on: what is done stays."""


@contextmanager
def lasting_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` for what long work has done so far, which a kill does not take away.

    It is found again as it was left by the next that asks for it. It goes when the block ends well or raises a
    JclipError other than Unfinished, which is for input that must be mended first.

    Raises:
      JclipError: another process has it, or it cannot be made.
    """
    missing = [parent for parent in folder.parents if not os.path.exists(parent)]
    lasting = folder.with_name(f".{folder.name}.unfinished")
    lock = _made_and_locked(lasting, folder)
    try:
        yield lasting
        shutil.rmtree(lasting, ignore_errors=True)
    except Unfinished:
        raise
    except JclipError:
        shutil.rmtree(lasting, ignore_errors=True)
        for parent in missing:  # those that are not empty stay
            with suppress(OSError):
                parent.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _made_and_locked(lasting: Path, folder: Path) -> int | None:
    """A lock on the folder, made if it is not there; None where the system has no locks."""
    while True:
        try:
            lasting.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JclipError(f"{folder} cannot be made ({error.strerror}): choose another place") from None
        if fcntl is None:
            return None
        try:
            lock = os.open(lasting, os.O_RDONLY)
        except FileNotFoundError:  # whoever had it just ended
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Unfinished(f"another process is writing {folder}: wait for it, or choose another place") from None
        except OSError:
            return lock  # the file system has no locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(lasting)):
                return lock
        os.close(lock)  # it was opened before whoever had it removed it


@contextmanager
def _beside(place: Path, make: Callable[[Path], None], named: Path | None = None) -> Iterator[Path]:
    """A hidden name beside `place`, which is gone in the end unless the block gave it another.

    Args:
      place: its name in the end.
      make: makes it.
      named: what an error names instead of `place`.
    """
    missing = [parent for parent in place.parents if not os.path.exists(parent)]
    fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.partial")
    locked = fresh.with_suffix(f".{_machine()}.partial")
    lock = None
    try:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            make(fresh)
            lock = _lock(fresh)
            partial = fresh if lock is None else fresh.rename(locked)
        except OSError as error:
            reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror  # a parent is a file
            cannot = "cannot be written to" if named and os.path.isdir(named) else "cannot be made"
            raise JclipError(f"{named or place} {cannot} ({reason}): choose another place") from None
        yield partial
    except OSError as error:
        if error.errno not in _FULL:
            raise
        elsewhere = error.filename is not None and not Path(str(error.filename)).is_relative_to(partial)
        raise Unfinished(
            f"{error.filename if elsewhere else place} cannot be written ({error.strerror}): free some space there, or "
            "choose another place"
        ) from None
    finally:
        for left in (fresh, locked):
            _remove(left)
        if lock is not None:
            os.close(lock)
        for parent in missing:  # those that are not empty stay
            with suppress(OSError):
                parent.rmdir()


def _name(partial: Path, file: Path) -> None:
    """Gives a file its name, if nothing has it."""
    try:
        os.link(partial, file)  # unlike a rename it fails where the name is taken
    except OSError:
        check_free(file)
        partial.rename(file)  # the file system knows no links


def _exchange(new: Path, folder: Path) -> None:
    if _swap(new, folder):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = new.with_suffix(".old")
    try:
        folder.rename(old)
        new.rename(folder)
    except BaseException:
        if not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchanges two names in one step; False where the system cannot, and nothing is changed."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    done: int = renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _SWAP)
    return done == 0


def _remove(place: Path) -> None:
    if os.path.isdir(place):
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink()


# Whoever writes holds a lock, and the system takes it back when the process dies, however that happens. A name with a
# machine in it was locked on that machine, where alone the lock is sure to be seen.


def _machine() -> str:
    return hashlib.blake2s(platform.node().encode(), digest_size=4).hexdigest()


def _sweep(place: Path) -> None:
    """Removes what processes that were killed on this machine left of `place`, or puts it back where it is missing."""
    pattern = f".{glob.escape(place.name)}.{'[0-9a-f]' * 8}.{_machine()}"
    for old in place.parent.glob(f"{pattern}.old"):
        new = old.with_suffix(".partial")
        lock = _lock(new)
        if lock is None and new.exists():
            continue  # whoever exchanges the two is at it
        if os.path.lexists(place):
            _remove(old)
        else:
            with suppress(OSError):  # another may just have put something there
                old.rename(place)
        if lock is not None:
            os.close(lock)
    for left in place.parent.glob(f"{pattern}.partial"):
        lock = _lock(left)
        if lock is not None:
            _remove(left)
            os.close(lock)


def _lock(place: Path) -> int | None:
    """A lock on it, or None where another process has one, or the file system none."""
    if fcntl is None:
        return None
    try:
        handle = os.open(place, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
