"""Pictures with classes from simple files.

    FOLDER/003/a.jpg …            a folder a class, in the order of their names, which may be numbers
    FOLDER/labels.tsv             or PICTURE<tab>CLASS[,CLASS…] lines: where a picture may show several
    FOLDER/classes.zh.txt         a name a line; also classes.txt, and cn_clip's label_cn.txt for Chinese

Without a file of names, those of the folders are taken.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError, unreadable

_PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ClassSet:
    """Pictures and what they show.

    Attributes:
      name: for tables.
      pictures: paths.
      truth_nc: which classes each shows, at least one.
      keys: the classes as the files call them.
    """

    name: str
    pictures: Sequence[Path]
    truth_nc: npt.NDArray[np.bool_]
    keys: tuple[str, ...]

    @property
    def single(self) -> bool:
        """Whether every picture shows one class."""
        return bool((self.truth_nc.sum(axis=1) == 1).all())

    @property
    def classes_n(self) -> npt.NDArray[np.int64]:
        """The class of each picture, the first where there are several."""
        return self.truth_nc.argmax(axis=1)


def read_classes(place: Path) -> ClassSet:
    """A set from a folder of class folders, or one with labels.tsv.

    Raises:
      JclipError: no such folder, no picture, an empty class, or a label that is none; file and line are given.
    """
    if not place.is_dir():
        raise JclipError(f"{place} is not there: name a folder with a folder for each class")
    if (place / "labels.tsv").is_file():
        return _read_labels(place / "labels.tsv")
    folders = [folder for folder in place.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    if len(folders) < 2:
        raise JclipError(f"{place} has {len(folders)} class folders: give it one for each class, or a labels.tsv")
    # As numbers where they are: torchvision's order of names puts 10 before 2, and with it the wrong label on both.
    numbered = all(folder.name.isdigit() for folder in folders)
    folders.sort(key=lambda folder: (int(folder.name), folder.name) if numbered else (0, folder.name))
    pictures: list[Path] = []
    classes: list[int] = []
    for number, folder in enumerate(folders):
        found = [
            Path(root) / name
            for root, _, names in sorted(os.walk(folder, followlinks=True))
            for name in sorted(names)
            if name.lower().endswith(_PICTURES)
        ]
        if not found:
            raise JclipError(f"{folder} holds no picture: every class needs one, or take the folder away")
        pictures += found
        classes += [number] * len(found)
    truth_nc = np.eye(len(folders), dtype=bool)[classes]
    return ClassSet(str(place), pictures, truth_nc, tuple(folder.name for folder in folders))


def _read_labels(file: Path) -> ClassSet:
    names = _names_in(file.parent, "")
    keys = list(_lines(names)) if names else []
    rows: list[tuple[Path, list[int]]] = []
    most = -1
    for number, line in enumerate(_lines(file, blank=True), 1):
        if not line.strip():
            continue
        name, tab, said = line.partition("\t")
        path = file.parent / name
        if not tab or not said.strip():
            raise JclipError(f"{file}, line {number}: expected PICTURE<tab>CLASS[,CLASS], found {line[:60]!r}")
        if not path.is_file():
            raise JclipError(f"{file}, line {number}: there is no picture {path}")
        classes = []
        for word in (part.strip() for part in said.split(",")):
            if word not in keys and not word.isdigit():
                raise JclipError(f"{file}, line {number}: {word!r} is neither a number nor a name in classes.txt")
            classes.append(keys.index(word) if word in keys else int(word))
        if keys and max(classes) >= len(keys):
            raise JclipError(f"{file}, line {number}: class {max(classes)} is not among the {len(keys)} of {names}")
        most = max(most, *classes)
        rows.append((path, classes))
    if not rows:
        raise JclipError(f"{file} holds no picture: give it lines PICTURE<tab>CLASS")
    keys = keys or [str(number) for number in range(most + 1)]
    truth_nc = np.zeros((len(rows), len(keys)), bool)
    for row, (_, classes) in enumerate(rows):
        truth_nc[row, classes] = True
    return ClassSet(str(file.parent), [path for path, _ in rows], truth_nc, tuple(keys))


def class_names(data: ClassSet, language: str, file: Path | None = None) -> list[str]:
    """The names of a set's classes in a language.

    Args:
      data: whose.
      language: BCP 47; "" for whichever there are.
      file: a name a line; by default one of the files beside the pictures, or else the folders' own names.

    Raises:
      JclipError: a file with another number of names than there are classes, or a line without any; or no names in
        that language.
    """
    found = file or _names_in(Path(data.name), language)
    if found is None:
        if all(key.isdigit() for key in data.keys):
            wanted = f"classes.{language}.txt" if language else "classes.txt"
            raise JclipError(f"{data.name} only numbers its classes: give their names in {wanted}, or with --classes")
        return [key.replace("_", " ") for key in data.keys]
    names = list(_lines(found))
    if len(names) != len(data.keys):
        raise JclipError(
            f"{found} has {len(names)} names, but {data.name} has {len(data.keys)} classes: give one line a class, in "
            "the order of the folders"
        )
    return names


def _names_in(folder: Path, language: str) -> Path | None:
    names = [f"classes.{language}.txt"] if language else []
    names += ["label_cn.txt"] if language == "zh" else []
    return next((folder / name for name in [*names, "classes.txt"] if (folder / name).is_file()), None)


def _lines(file: Path, *, blank: bool = False) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from None
    for number, line in enumerate(lines, 1):
        if not blank and not line.strip():
            raise JclipError(f"{file}, line {number} is empty: give one name a line")
    return lines if blank else [line.strip() for line in lines]
