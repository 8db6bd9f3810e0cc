"""How folders of classes are numbered, and files that name the classes: for whoever imports and whoever scores them."""

from collections.abc import Iterable
from pathlib import Path

from jclip.errors import JclipError, shown, unreadable
from jclip.json_files import read_object


def in_order(folders: Iterable[str]) -> list[str]:
    """Names of classes' folders by class: as numbers where all are numbers, else as torchvision's ImageFolder has it.

    ImageFolder puts 10 before 2, and with it the wrong line of a file of names on both.

    >>> in_order(["10", "2", "1"])
    ['1', '2', '10']
    """
    names = sorted(folders)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def read_names(file: Path) -> list[str]:
    """The names of classes in a file, one a line.

    Raises:
      JclipError: it cannot be read, or a line is empty.
    """
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error, "as names of classes") from None
    if "" in names:
        raise JclipError(f"{file}, line {names.index('') + 1} is empty: give one name a line")
    return names


def read_labels(folder: Path) -> dict[str, list[str]]:
    """What a data folder's classes are called, by language, from its labels.json; empty where there is none.

    Raises:
      JclipError: it cannot be read.
    """
    file = folder / "labels.json"
    if not file.exists():
        return {}
    called = read_object(file, "as names of classes")
    for language, names in called.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise JclipError(f"{file}: {shown(language)} must hold a list of names: mend it, or import the data again")
    return called
