"""Folders that are whole or absent, whatever happens while they are written."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jclip.errors import JclipError


@contextmanager
def whole_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """A new folder to write into, beside `folder`, whose name it takes when the block ends well.

    When the block raises, or the process is interrupted in it, the new folder goes and what stood there stays.

    Args:
      folder: the name in the end; its parents are made.
      replace: whether it may take the place of an older one.

    Raises:
      JclipError: the place is taken and must not be replaced, or it cannot be written to.
    """
    if folder.exists() and not (replace and folder.is_dir()):
        raise JclipError(f"{folder} is there already: move it away, or choose another name")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise JclipError(f"{folder} cannot be made ({error.strerror}): choose another place") from None
    try:
        yield partial
        if folder.exists():
            old = partial.with_suffix(".old")
            folder.rename(old)
            partial.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A new file to write, beside `file`, whose name it takes when the block ends well; otherwise it goes.

    Raises:
      JclipError: the place is taken, or there is no folder for it.
    """
    if file.exists():
        raise JclipError(f"{file} is there already: move it away, or choose another name")
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise JclipError(f"{file} cannot be made ({error.strerror}): choose another place") from None
    try:
        yield partial
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
