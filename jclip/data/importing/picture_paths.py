"""Finds the image files that a table names, or hints at the nearest file.

Accepted differences: white space around a name, backslashes for slashes, another Unicode form of the same letters (a
Mac writes é as two characters). Only suggested: another case, another extension, a similar name, another folder.
"""

import difflib
import errno
import os
import re
import shlex
import stat
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_WEB = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NAMES = 20_000  # maximum number of a folder's names to compare; more take too long
_FOLDERS = 200  # maximum number of folders to search for the same name
_LONGEST = 200  # maximum number of characters of a name in a message

SPACE, BACKSLASH, FORM = "white space around the name", "backslashes for slashes", "another Unicode form of the name"
WAYS = ("", SPACE, BACKSLASH, FORM)
"""Accepted differences between a name and its file's name; none first."""


def is_absolute(name: str) -> bool:
    """Returns True for an absolute path, of this system or of Windows."""
    return name.startswith("/") or _WINDOWS.match(name) is not None


def is_there(path: Path) -> bool:
    """Returns True if a path exists and is not a folder, or if the system cannot tell.

    In the latter case, for example if the disk fails, reading the file reports what is wrong.
    """
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        return error.errno not in _NO_FILE
    except ValueError:  # a null character
        return False


class PictureFinder:
    """Finder of images below `root`, which replaces `prefix` at the beginning of absolute names ("C:/Users/li/")."""

    def __init__(self, root: Path, prefix: str = ""):
        self._root, self._prefix = root, prefix
        self._listed: dict[Path, list[str]] = {}

    def find(self, name: str) -> tuple[Path | None, str]:
        """Returns the file of a name, or None; and how its path differs from the name, one of `WAYS`."""
        way = ""
        tried = [(name, "")]
        if (stripped := name.strip()) != name:
            tried.append((stripped, SPACE))
        if "\\" in stripped and not _WINDOWS.match(stripped):
            tried.append((stripped.replace("\\", "/"), BACKSLASH))
        if self._prefix:
            slashed = stripped.replace("\\", "/")
            if slashed.startswith(self._prefix):
                tried = [(slashed.removeprefix(self._prefix), "")]
        for one, way in tried:
            if one and is_there(self._root / one):
                return self._root / one, way
        one = tried[-1][0]
        if one and not one.isascii() and (path := self._other_form(one)) is not None:
            return path, FORM
        return None, ""

    def _other_form(self, name: str) -> Path | None:
        """Returns the only file whose name is equal in another Unicode form, in each folder on the path."""
        place = self._root
        for part in Path(name).parts:
            if part in ("/", ".."):
                place = place / part
                continue
            wanted = unicodedata.normalize("NFC", part)
            same = [each for each in self._names(place) if unicodedata.normalize("NFC", each) == wanted]
            if len(same) != 1 and part not in same:
                return None
            place = place / (part if part in same else same[0])
        return place if is_there(place) else None

    def hint(self, name: str) -> str:
        """Returns where a missing file was searched, and the nearest name."""
        bare = name.strip().replace("\\", "/")
        if _WEB.match(bare):
            return "a web address: fetch the images first"
        if is_absolute(name.strip()) and not (self._prefix and bare.startswith(self._prefix)):
            if _WINDOWS.match(name.strip()):
                return "a Windows path: name the folder of the images with --root"
            return "an absolute path: name the folder of the images with --root"
        path = self._root / bare.removeprefix(self._prefix)
        place = path.parent
        if not place.is_dir():
            while not place.is_dir() and place != place.parent:
                place = place.parent
            missing = path.relative_to(place).parts[0]
            near = self._nearest(place, missing, os.path.isdir)
            return f"there is no folder {_short(missing)} in {place}{near}{self._elsewhere(path)}"
        near = self._nearest(place, path.name, os.path.isfile)
        return f"searched in {place}{near}{'' if near else self._elsewhere(path)}"

    def _nearest(self, place: Path, name: str, wanted: Callable[[Path], bool]) -> str:
        names = self._names(place)[:_NAMES]
        stem = name.rpartition(".")[0] or name
        for why, same in (
            ("other case", [each for each in names if each.casefold() == name.casefold()]),
            ("other extension", [each for each in names if each.rpartition(".")[0] in (name, stem)]),
            ("similar name", difflib.get_close_matches(name, names, 3, 0.75)),
        ):
            if found := next((each for each in same if wanted(place / each)), None):
                return f", which has {_short(found)} ({why})"
        return ""

    def _elsewhere(self, path: Path) -> str:
        """Returns in which other folder below `root` a file has this name, or the --root that finds it."""
        name, parts = path.name, path.relative_to(self._root).parts
        waiting, seen = [self._root], 0
        while waiting and seen < _FOLDERS:
            place, seen = waiting.pop(0), seen + 1
            names = self._names(place)
            if name in names and is_there(place / name):
                found = (place / name).parts
                if found[-len(parts) :] == parts:
                    return f"; --root {shlex.quote(str(Path(*found[: -len(parts)])))} finds it"
                return f"; a file of this name is in {place}"
            if len(names) <= _NAMES:
                waiting += [place / each for each in names if not each.startswith(".") and os.path.isdir(place / each)]
        return ""

    def _names(self, place: Path) -> list[str]:
        if place not in self._listed:
            try:
                self._listed[place] = sorted(os.listdir(place))
            except OSError:
                self._listed[place] = []
        return self._listed[place]


def _short(name: str) -> str:
    return repr(name[:_LONGEST])


def find_prefix(root: Path, names: Sequence[str]) -> str:
    """Returns the prefix of absolute names, such as "C:/Users/li/", that `root` must replace to find most of the files.

    Returns "" if no name is absolute or no prefix fits.
    """
    absolute = [name.strip().replace("\\", "/") for name in names if is_absolute(name.strip())]
    if not absolute or is_there(root / absolute[0]):
        return ""
    parts = absolute[0].split("/")
    for count in range(1, len(parts)):
        prefix = "/".join(parts[:count]) + "/"
        found = [name for name in absolute if name.startswith(prefix) and is_there(root / name.removeprefix(prefix))]
        if 2 * len(found) > len(absolute):
            return prefix
    return ""
