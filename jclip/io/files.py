"""Writes files and folders atomically: they are complete or absent, whatever interrupts the writing."""

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
_HERE, _SWAP = -100, 2  # Linux: AT_FDCWD and RENAME_EXCHANGE
_NOT_DISK = ("memory", "hbm")  # accelerators raise RESOURCE_EXHAUSTED too


def check_free(place: Path) -> None:
    """Raises JclipError if something exists at a path, even a dangling link. Call it before long work."""
    if os.path.lexists(place):
        raise JclipError(f"{place} exists already: move it away, or choose another name")


def check_utf8(place: Path, library: str = "array_record") -> None:
    """Raises JclipError if a path is not valid UTF-8, which `library` requires."""
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise JclipError(f"{place} is not valid UTF-8, which {library} requires: choose another name") from None


def check_writable(place: Path) -> None:
    """Checks, before long work, that a new file or folder can be created at a path, by creating one beside it.

    Raises JclipError if something exists at the path, or its folder cannot be written.
    """
    recover(place)
    check_free(place)
    with _beside(place, Path.mkdir):
        pass


def check_folder(folder: Path) -> None:
    """Checks, before long work, that files can be created in a folder, which may exist. Leaves nothing behind.

    Raises JclipError if the folder cannot be created or written.
    """
    try:
        with suppress(FileNotFoundError):
            folder.stat()
    except OSError as error:
        raise JclipError(f"{folder} cannot be made ({error.strerror}): choose another place") from None
    # The folder itself is not created, because removing it could disturb another run that has just started.
    existing = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    with _beside(existing / "unfinished", Path.touch, folder):
        pass


@contextmanager
def whole_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`, and renames it to `folder` if the block succeeds.

    Creates missing parents. If the block raises or is interrupted, the temporary folder is removed and an older
    `folder` stays. The next writer removes what a killed process left. Raises JclipError if `folder` exists and
    `replace` is False, or it cannot be written.
    """
    recover(folder)
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
    """Yields a temporary file beside `file`, and renames it to `file` if the block succeeds.

    Creates missing parents. If several processes write the same file, the first one succeeds; the others fail, or
    replace it if `replace` is True. Raises JclipError if `file` exists and `replace` is False, or it cannot be written.
    """
    recover(file)
    if not replace:
        check_free(file)
    with _beside(file, Path.touch) as partial:
        yield partial
        if replace:
            partial.replace(file)
        else:
            _link(partial, file)


def remove_folder(folder: Path) -> None:
    """Removes a folder, if it exists. It is complete or absent, whatever interrupts the removal.

    Raises JclipError if it cannot be removed.
    """
    refusal = "cannot be removed ({}): correct its permissions, and those of the folder that it is in"
    try:
        with _beside(folder, Path.mkdir, refusal=refusal) as partial, suppress(FileNotFoundError):
            folder.rename(partial / "old")
    except PermissionError as error:
        raise JclipError(f"{folder} {refusal.format(error.strerror)}") from None


def link_or_copy(file: str | Path, name: str | Path) -> None:
    """Links a file to another name, or copies it if the file system has no links."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def is_full_disk(error: BaseException | None) -> bool:
    """Returns True if an error or one of its causes, of any type, reports a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(error)
        if any(words in text for words in _FULL_WORDS) and not any(words in text.lower() for words in _NOT_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


class Unfinished(JclipError):
    """Interrupted work that can be resumed."""


@contextmanager
def lasting_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `folder` for the intermediate files of long work, which survive a kill.

    The next call for the same folder finds the files. They are removed if the block succeeds, or raises a JclipError
    other than Unfinished: then the input must be corrected first. Raises JclipError if another process uses the folder,
    or it cannot be created.
    """
    missing = [parent for parent in folder.parents if not os.path.exists(parent)]
    lasting = folder.with_name(f".{folder.name}.unfinished")
    lock = _create_and_lock(lasting, folder)
    try:
        yield lasting
        shutil.rmtree(lasting, ignore_errors=True)
    except Unfinished:
        raise
    except JclipError:
        shutil.rmtree(lasting, ignore_errors=True)
        for parent in missing:  # fails for those that are not empty
            with suppress(OSError):
                parent.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _create_and_lock(lasting: Path, folder: Path) -> int | None:
    """Creates a folder if necessary and returns a lock on it; None if the system has no locks."""
    while True:
        try:
            lasting.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JclipError(f"{folder} cannot be made ({error.strerror}): choose another place") from None
        if fcntl is None:
            return None
        try:
            lock = os.open(lasting, os.O_RDONLY)
        except FileNotFoundError:  # its owner has just removed it
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
        os.close(lock)  # its owner removed it after we opened it


@contextmanager
def _beside(place: Path, make: Callable[[Path], None], named: Path | None = None, refusal: str = "") -> Iterator[Path]:
    """Yields a hidden path beside `place`, and removes it in the end unless the block has renamed it.

    `make` creates the file or folder. Errors name `named`, by default `place`; `refusal` says what else cannot be done.
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
            # FileExistsError: a parent is a file.
            reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
            cannot = "cannot be written" if named and os.path.isdir(named) else "cannot be made"
            words = refusal or f"{cannot} ({{}}): choose another place"
            raise JclipError(f"{named or place} {words.format(reason)}") from None
        yield partial
    except OSError as error:
        if error.errno not in _FULL:
            raise
        elsewhere = error.filename is not None and not Path(str(error.filename)).is_relative_to(partial)
        raise Unfinished(
            f"{error.filename if elsewhere else place} cannot be written ({error.strerror}): free some space, or "
            "choose another place"
        ) from None
    finally:
        for left in (fresh, locked):
            _remove(left)
        if lock is not None:
            os.close(lock)
        for parent in missing:  # fails for those that are not empty
            with suppress(OSError):
                parent.rmdir()


def _link(partial: Path, file: Path) -> None:
    """Renames a file if nothing has the new name."""
    try:
        os.link(partial, file)  # unlike rename, link fails if the name is taken
    except OSError:
        check_free(file)
        partial.rename(file)  # the file system has no hard links


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
    """Exchanges two names atomically; returns False, without changes, if the system cannot."""
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


# A writer holds a lock, which the system releases when the process dies. The hidden name contains a hash of the
# machine's name, because on network file systems only the same machine is sure to see the lock.


def _machine() -> str:
    return hashlib.blake2s(platform.node().encode(), digest_size=4).hexdigest()


def recover_all(folder: Path) -> None:
    """Removes leftovers of processes killed on this machine while writing anything in a folder: see `recover`."""
    for left in folder.glob(f".*.{_machine()}.partial"):
        recover(folder / left.name[1:].rsplit(".", 3)[0])


def recover(place: Path) -> None:
    """Removes leftovers of processes killed on this machine while writing `place`, and restores an older folder."""
    pattern = f".{glob.escape(place.name)}.{'[0-9a-f]' * 8}.{_machine()}"
    for old in place.parent.glob(f"{pattern}.old"):
        new = old.with_suffix(".partial")
        lock = _lock(new)
        if lock is None and new.exists():
            continue  # another process is exchanging the two
        if os.path.lexists(place):
            _remove(old)
        else:
            with suppress(OSError):  # another process may have written it meanwhile
                old.rename(place)
        if lock is not None:
            os.close(lock)
    for left in place.parent.glob(f"{pattern}.partial"):
        lock = _lock(left)
        if lock is not None:
            _remove(left)
            os.close(lock)


def _lock(place: Path) -> int | None:
    """Returns a lock, or None if another process holds one or the file system has no locks."""
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
