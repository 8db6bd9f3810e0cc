"""Files of a folder of classes: images, and others with the reason why they are not, for imports and evaluation."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jclip.errors import unreadable
from jclip.images.preprocess import is_picture_name
from jclip.io.reading import LARGEST_PICTURE, TOO_LARGE, files_under

HIDDEN = "hidden file"
OUTSIDE = "file outside the class folders"
PICTURE_OUTSIDE = "image outside the class folders"
NO_PICTURE = "the file's name is not that of an image"
NO_FILE = "the file is a link to nowhere"
SPECIAL = "not a regular file"

BESIDE = (HIDDEN, OUTSIDE)
"""Reasons of files that are not data: they are counted, and are not a fault of the source."""


class Sorted(NamedTuple):
    """File, and the reason why it is left out; empty for an image."""

    file: Path
    reason: str = ""


def sorted_out(folder: Path) -> list[Sorted]:
    """Returns every file below a class folder, sorted by name. Raises JclipError if a folder cannot be listed."""
    return [Sorted(file, _why_not(file, folder)) for file in files_under(folder)]


def outside(folder: Path, read: Iterable[Path] = ()) -> Iterator[Sorted]:
    """Yields the files beside the class folders, except those in `read`, and the files in hidden folders.

    Raises JclipError if a folder cannot be listed.
    """
    known = set(read)
    for each in _listed(folder):
        if each.name.startswith("."):
            yield from (Sorted(file, HIDDEN) for file in (files_under(each) if each.is_dir() else [each]))
        elif not each.is_dir() and each not in known:
            yield Sorted(each, PICTURE_OUTSIDE if is_picture_name(each.name) else OUTSIDE)


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
