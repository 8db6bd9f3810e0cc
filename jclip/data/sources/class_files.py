"""Files of class folders, for imports and evaluation: images, and other files with the reason to leave them out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jclip.errors import unreadable
from jclip.images.preprocess import is_picture_name
from jclip.io.reading import LARGEST_PICTURE, TOO_LARGE, files_under

HIDDEN = "hidden file"
OUTSIDE = "file outside the class folders"
PICTURE_OUTSIDE = "image outside the class folders"
NO_PICTURE = "the file has no extension of an image format"
NO_FILE = "the file is a broken link"
SPECIAL = "not a regular file"

BESIDE = (HIDDEN, OUTSIDE)
"""Reasons to leave out files that are not data. They are counted, but are not a fault of the source."""


class ClassFile(NamedTuple):
    """File of a class folder, and the reason to leave it out; empty for an image."""

    file: Path
    reason: str = ""


def files_of_class(folder: Path) -> list[ClassFile]:
    """Returns every file below a class folder, sorted by name. Raises JclipError if a folder cannot be listed."""
    return [ClassFile(file, _why_not(file, folder)) for file in files_under(folder)]


def outside(folder: Path, read: Iterable[Path] = ()) -> Iterator[ClassFile]:
    """Yields the files beside the class folders, except those in `read`, and the files in hidden folders.

    Raises JclipError if a folder cannot be listed.
    """
    known = set(read)
    for each in _listed(folder):
        if each.name.startswith("."):
            yield from (ClassFile(file, HIDDEN) for file in (files_under(each) if each.is_dir() else [each]))
        elif not each.is_dir() and each not in known:
            yield ClassFile(each, PICTURE_OUTSIDE if is_picture_name(each.name) else OUTSIDE)


def class_folders(folder: Path) -> list[str]:
    """Returns the names of a folder's sub-folders that are not hidden. Raises JclipError if it cannot be listed."""
    return [each.name for each in _listed(folder) if each.is_dir() and not each.name.startswith(".")]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None


def _why_not(file: Path, folder: Path) -> str:
    if any(part.startswith(".") for part in file.relative_to(folder).parts):
        return HIDDEN
    if not file.is_file():
        return NO_FILE if file.is_symlink() and not file.exists() else SPECIAL
    if not is_picture_name(file.name):
        return NO_PICTURE
    return TOO_LARGE if file.stat().st_size > LARGEST_PICTURE else ""
