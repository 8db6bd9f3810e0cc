"""Numbering of class folders, and files of class names, for imports and evaluation."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from jclip.errors import JclipError, unreadable
from jclip.io.json_files import read_object
from jclip.io.reading import read_regular
from jclip.plain import shown

LARGEST = 64 << 20
"""Maximum number of bytes of a file of names."""

_BREAK = re.compile("[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # where str.splitlines and editors begin a line


def in_order(folders: Iterable[str]) -> list[str]:
    """Returns the names of class folders by class number: numerically if all are numbers, else sorted like torchvision.

    torchvision's ImageFolder puts 10 before 2, which would pair both with the wrong line of a file of names.

    >>> in_order(["10", "2", "1"])
    ['1', '2', '10']
    """
    names = sorted(folders)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def check_names(place: Path, names: Iterable[str]) -> None:
    """Checks that class folder names can be stored one per line, and are distinct. Messages name `place`, their folder.

    Raises JclipError if a name has a line break, is blank, has surrounding white space or bytes that are not UTF-8; or
    if two differ only in Unicode form.
    """
    found = list(names)
    for name in found:
        if wrong := _unlistable(name):
            raise JclipError(f"{place}: the name of the class folder {name!r} {wrong}: rename the folder")
    check_distinct(place, found)


def check_distinct(place: Path, names: Iterable[str]) -> None:
    """Checks that class folder names are UTF-8 and distinct. Messages name `place`, their folder.

    Raises JclipError if a name has bytes that are not UTF-8, or two differ only in white space or Unicode form.
    """
    seen: dict[str, str] = {}
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            what = f"the name of the class folder {name!r}"
            raise JclipError(f"{place}: {what} is not UTF-8: rename the folder") from None
        first = seen.setdefault(unicodedata.normalize("NFC", name.strip()), name)
        if first != name:
            raise JclipError(
                f"{place}: the names of the class folders {first!a} and {name!a} differ only in white space or Unicode "
                "form: merge the folders, or rename one"
            )


def _unlistable(name: str) -> str:
    if _BREAK.search(name):
        return "holds a line break, but class names are stored one per line"
    if not name.strip():
        return "is blank"
    return "begins or ends with white space" if name != name.strip() else ""


def check_stored(folder: Path, names: Iterable[str]) -> None:
    """Checks that a data folder has one name for each of its classes.

    Folders that older versions wrote may have another number of names, if a class folder's name had a line break or was
    blank. Their images would get wrong class names. Raises JclipError if the numbers differ.
    """
    try:
        features = read_object(folder / "features.json")["featuresDict"]["features"]
        wanted = int(features["labels"]["sequence"]["feature"]["classLabel"]["numClasses"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, JclipError):
            raise
        raise unreadable(folder / "features.json", error, "as a description of classes") from None
    have = len(list(names))
    if have != wanted:
        raise JclipError(
            f"{folder / 'labels.labels.txt'} has {have} names for {wanted} classes: rename the class folders whose "
            "names hold line breaks or are blank, and import them again"
        )


def read_names(file: Path) -> list[str]:
    """Reads class names from a file, one per line.

    Raises JclipError if it cannot be read, a line is empty, or a name has a character that may end a line.
    """
    try:
        text = read_regular(file, LARGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error, "as names of classes") from None
    lines = re.split("\r\n|\n|\r", text)
    names = [line.strip() for line in (lines[:-1] if len(lines) > 1 and not lines[-1] else lines)]
    for number, name in enumerate(names, 1):
        if not name:
            raise JclipError(f"{file}, line {number} is empty: write one name per line")
        if _BREAK.search(name):
            raise JclipError(
                f"{file}, line {number}: {name[:60]!r} holds a character that some programs read as a line break: "
                "remove it, or write each name on its own line"
            )
    return names


def read_labels(folder: Path) -> dict[str, list[str]]:
    """Returns class names by language, from labels.json; {} without such a file. Raises JclipError if unreadable."""
    file = folder / "labels.json"
    if not file.exists():
        return {}
    called = read_object(file, "as names of classes")
    for language, names in called.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise JclipError(f"{file}: {shown(language)} must hold a list of names: correct it, or import again")
    return called
