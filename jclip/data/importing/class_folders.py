"""Folders of pictures for classification: SRC/SPLIT/CLASS/….jpg, or SRC/CLASS/….jpg where there is one split only.

Classes are numbered in the order of their folders' names, as numbers where all are numbers. What they are called may
be said beside their folders, or beside the folders of the splits:

    classes.zh.txt, classes.de.txt, …    a name a line, in the order of the classes
    label_cn.txt                         cn_clip's name for classes.zh.txt
    classes.txt                          names in English, or in the --language that is said

The folder gets them as labels.json.
"""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jclip.data.class_names import in_order, read_names
from jclip.data.images import PICTURES
from jclip.data.importing.parts import Found, Lost, Part, Reader, Reading, cut
from jclip.data.importing.splits import USUAL, choose_splits
from jclip.data.kinds import LABELLED, StoredLabelled
from jclip.errors import JclipError
from jclip.plain import as_json

_NO_FILE = "the file is a link to nowhere"
_NO_PICTURE = "the file's name is not that of a picture"


@dataclass(frozen=True)
class ClassReader(Reader):
    """Pictures by split and class.

    Attributes:
      pictures: of each split, (file, numbers of its classes), in order; last what is no picture, without classes.
      notes: see `Reader`.
    """

    pictures: dict[str, tuple[tuple[Path, tuple[int, ...]], ...]] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """See `Reader`."""
        parts: list[Part] = []
        for split, pictures in self.pictures.items():
            sizes = np.array([file.lstat().st_size for file, _ in pictures], np.int64)
            parts += [_Part(split, start, pictures[start:stop]) for start, stop in cut(sizes, shard_bytes)]
        return parts


def open_class_folders(source: Path, reading: Reading) -> ClassReader:
    """Opens such a folder.

    Raises:
      JclipError: it has no pictures in folders of classes, its splits have different classes, or a file of names is not
        as it should be.
    """
    folders = _folders(source)
    if folders and set(folders) <= set(USUAL):
        chosen = choose_splits(source, folders, reading)
        by_split = {split: source / split for split in chosen}
    else:
        by_split = {reading.split(): source}
    names = {split: _folders(folder) for split, folder in by_split.items()}
    classes = next(iter(names.values()))
    for split, found in names.items():
        if odd := sorted(set(found) ^ set(classes)):
            raise JclipError(
                f"{by_split[split]}: its classes differ from those of {next(iter(names))}, {odd[0]!r} is in one only: "
                "make the folders equal, or choose --splits"
            )
    called = _called(by_split, classes, reading.language or "en")
    notes = (("labels.json", as_json(called, indent=1) + "\n"),) if called else ()
    return classified(by_split, {name: name for name in classes}, notes=notes)


def _called(by_split: dict[str, Path], classes: list[str], usual: str) -> dict[str, list[str]]:
    """What the classes are called, by language; the first that of classes.txt, `usual`. Empty where no file says it."""
    called: dict[str, list[str]] = {}
    sources: dict[str, Path] = {}
    for folder in by_split.values():
        files: dict[str, Path] = {}
        for place in (folder, folder.parent) if folder.name in USUAL else (folder,):
            mine = {file.name.split(".")[1]: file for file in sorted(place.glob("classes.*.txt"))}
            for language, file in (*mine.items(), ("zh", place / "label_cn.txt"), (usual, place / "classes.txt")):
                if file.is_file():
                    files.setdefault(language, file)
        for language, file in files.items():
            found = read_names(file)
            if len(found) != len(classes):
                raise JclipError(
                    f"{file} has {len(found)} names for {len(classes)} classes: give one line a class, in the order of "
                    "the folders"
                )
            if called.setdefault(language, found) != found:
                raise JclipError(f"{file} names the classes in another way than {sources[language]}: keep one of them")
            sources.setdefault(language, file)
    if called and usual not in called and not all(name.isdecimal() for name in classes):
        called[usual] = [name.replace("_", " ") for name in classes]  # which is what they are called without a file
    return dict(sorted(called.items(), key=lambda item: item[0] != usual))


def classified(
    by_split: dict[str, Path],
    classes: dict[str, str],
    strict: bool = False,
    notes: tuple[tuple[str, str], ...] = (),
    several: bool = False,
) -> ClassReader:
    """A reader of folders whose classes are known.

    Args:
      by_split: the folder of each split.
      classes: the name of the class by that of its folder, in order.
      strict, notes: see `Reader`.
      several: a picture may have several classes, and then stands in the folder of each under one name.

    Raises:
      JclipError: a split has no picture.
    """
    pictures = {}
    for split, folder in by_split.items():
        found: list[tuple[Path, tuple[int, ...]]] = []
        others: list[tuple[Path, tuple[int, ...]]] = []
        for label, name in enumerate(classes):
            for file in sorted((folder / name).rglob("*")):
                if file.is_file() and file.suffix.lower().lstrip(".") in PICTURES:
                    found.append((file, (label,)))
                elif not file.is_dir() and not file.name.startswith("."):
                    others.append((file, ()))
        pictures[split] = (*(_merged(found) if several else found), *others)
        if not found:
            raise JclipError(f"{folder} has no CLASS/PICTURE.jpg: name a folder with a folder for each class")
    files = tuple(file for each in pictures.values() for file, labels in each if labels)
    return ClassReader(LABELLED, files, strict, tuple(classes.values()), pictures, notes)


def _merged(found: Sequence[tuple[Path, tuple[int, ...]]]) -> list[tuple[Path, tuple[int, ...]]]:
    """Pictures of one name and with the same bytes once, with all their classes, in the order of their names."""
    labels: dict[Path, tuple[int, ...]] = {}
    named: dict[str, list[Path]] = {}
    for file, label in found:
        same = named.setdefault(file.name, [])
        first = next((each for each in same if filecmp.cmp(each, file, shallow=False)), None)
        if first is None:
            same.append(file)
        labels[first or file] = labels.get(first or file, ()) + label
    return sorted(labels.items(), key=lambda item: item[0].name)


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise JclipError(f"there is no folder {folder}: name one that has a folder for each class")
    return in_order(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


@dataclass(frozen=True)
class _Part:
    split: str
    start: int
    pictures: tuple[tuple[Path, tuple[int, ...]], ...]

    def records(self) -> Iterator[Found | Lost]:
        for number, (file, labels) in enumerate(self.pictures, self.start):
            place = str(Path(*file.parts[-3:]))
            if not labels:
                yield Lost(place, _NO_FILE if file.is_symlink() and not file.exists() else _NO_PICTURE)
                continue
            yield Found(place, StoredLabelled(file.read_bytes(), labels, number))
