"""Check that a folder is the emoji data set's own, before the set is built or read there."""

import os
from pathlib import Path

from jclip.data.emoji.fetch import pins
from jclip.errors import JclipError
from jclip.io.files import check_utf8

MARKER = ".jclip-emoji"
"""Name of the file that says whose folder it is, written before anything else."""

_OWN = ("downloads", "emoji", "wheels")
_DESCRIPTION = Path("emoji/1.0.0/dataset_info.json")
_BUILDER = '"moduleName": "jclip.data.emoji.builder"'
_SHOWN = 3


def is_built(folder: Path) -> bool:
    """Whether the data set is in the folder, by its description."""
    try:
        with (folder / _DESCRIPTION).open(encoding="utf-8") as file:
            return _BUILDER in file.read(100_000)
    except (OSError, UnicodeDecodeError):
        return False


def check_own(folder: Path) -> None:
    """Checks that the folder is new, empty or the data set's own.

    Raises:
      JclipError: it holds anything else, or its name is not UTF-8.
    """
    check_utf8(folder)
    foreign = _foreign(folder)
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise JclipError(
            f"{folder} holds {', '.join(map(repr, foreign[:_SHOWN]))}{more}, but the emoji data set builds itself in a "
            "folder of its own: name a new one. For your own data, give the stage a PairFolder or a ParallelFolder"
        )


def take(folder: Path) -> None:
    """Checks the folder as `check_own` does, and marks it.

    Raises:
      JclipError: as `check_own`.
    """
    check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARKER).exists() and os.access(folder, os.W_OK):
        (folder / MARKER).write_text("The emoji data set of jclip builds itself here.\n", encoding="utf-8")


def _foreign(folder: Path) -> list[str]:
    """Returns the names in the folder that are not the data set's."""
    if not folder.is_dir():
        return []
    there = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    known = (folder / MARKER).is_file() or is_built(folder)
    return [name for name in there if name not in _OWN or not (known or _is_half(folder / name))]


def _is_half(place: Path) -> bool:
    """Whether a folder is what an older jclip leaves that was stopped while it built the data set."""
    if place.name == "wheels":
        files = {pin.file for pin in pins().values()}
        return place.is_dir() and all(file.name in files or file.name.startswith("tmp") for file in place.iterdir())
    return place.is_dir() and all(file.name.startswith(("incomplete.", "1.0.0.incomplete")) for file in place.iterdir())
