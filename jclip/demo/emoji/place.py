"""Checks that a folder belongs to the emoji data set, before the set is built or read in it."""

import os
from pathlib import Path

from jclip.demo.emoji.fetch import pins
from jclip.errors import JclipError
from jclip.io.files import check_utf8

MARKER = ".jclip-emoji"
"""Name of the file that marks the folder as the data set's, written before any other."""

_OWN = ("downloads", "emoji", "wheels")
_DESCRIPTION = Path("emoji/1.0.0/dataset_info.json")
_BUILDER = '.emoji.builder"'
_SHOWN = 3


def is_built(folder: Path) -> bool:
    """Returns True if the folder contains the data set's description."""
    try:
        with (folder / _DESCRIPTION).open(encoding="utf-8") as file:
            return _BUILDER in file.read(100_000)
    except (OSError, UnicodeDecodeError):
        return False


def built_at(folder: Path) -> int:
    """Returns the time at which the data set was built, in nanoseconds."""
    return (folder / _DESCRIPTION).stat().st_mtime_ns


def check_own(folder: Path) -> None:
    """Raises JclipError if the folder contains other files than the data set's, or its name is not UTF-8."""
    check_utf8(folder)
    foreign = _foreign(folder)
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise JclipError(
            f"{folder} contains {', '.join(map(repr, foreign[:_SHOWN]))}{more}, but the emoji data set needs a "
            "folder of its own: name a new one. For your own data, give the stage a PairFolder or a ParallelFolder"
        )


def take(folder: Path) -> None:
    """Checks the folder as `check_own` does, and marks it."""
    check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARKER).exists() and os.access(folder, os.W_OK):
        (folder / MARKER).write_text("jclip builds its emoji data set in this folder.\n", encoding="utf-8")


def _foreign(folder: Path) -> list[str]:
    """Returns the names in the folder that do not belong to the data set."""
    if not folder.is_dir():
        return []
    there = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    known = (folder / MARKER).is_file() or is_built(folder)
    return [name for name in there if name not in _OWN or not (known or _is_half(folder / name))]


def _is_half(place: Path) -> bool:
    """Returns True for a folder that an interrupted build left without a marker."""
    if place.name == "wheels":
        files = {pin.file for pin in pins().values()}
        return place.is_dir() and all(file.name in files or file.name.startswith("tmp") for file in place.iterdir())
    return place.is_dir() and all(file.name.startswith(("incomplete.", "1.0.0.incomplete")) for file in place.iterdir())
