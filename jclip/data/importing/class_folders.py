"""Folders of images for classification: SRC/SPLIT/CLASS/….jpg, or SRC/CLASS/….jpg if there is only one split.

Classes are numbered in the order of their folders' names; numerically if all names are numbers. Files beside the class
folders, or beside the split folders, may give the class names:

    classes.zh.txt, classes.de.txt, …    one name per line, in the order of the classes
    label_cn.txt                         cn_clip's name for classes.zh.txt
    classes.txt                          names in English, or in the given --language

They are stored in labels.json.
"""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jclip.data.importing.parts import Beside, Found, Lost, Part, Reader, Reading, cut
from jclip.data.importing.splits import USUAL, choose_splits
from jclip.data.sources import class_files
from jclip.data.sources.class_names import check_names, in_order, read_names
from jclip.data.sources.kinds import LABELLED, StoredLabelled
from jclip.errors import JclipError, unreadable
from jclip.io.reading import LARGEST_PICTURE, Refused, read_regular
from jclip.plain import as_json


class LabelledFile(NamedTuple):
    """File of a split; `labels` are its class numbers, or `reason` says why it is left out."""

    file: Path
    labels: tuple[int, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class ClassReader(Reader):
    """Files of each split, in order; those that are left out come last."""

    items: dict[str, tuple[LabelledFile, ...]] = field(default_factory=dict)

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        parts: list[Part] = []
        for split, items in self.items.items():
            sizes = np.array([item.file.lstat().st_size for item in items], np.int64)
            parts += [_Part(split, start, items[start:stop]) for start, stop in cut(sizes, shard_bytes)]
        return parts


def open_class_folders(source: Path, reading: Reading) -> ClassReader:
    """Opens a folder of class folders.

    Raises JclipError if it has no images in class folders, its splits have different classes, or class names cannot be
    stored.
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
                f"{by_split[split]}: its classes differ from those of {next(iter(names))}: only one has {odd[0]!r}: "
                "make the folders equal, or choose --splits"
            )
    called, read = _called(by_split, classes, reading.language or "en")
    notes = (("labels.json", as_json(called, indent=1) + "\n"),) if called else ()
    return classified(by_split, {name: name for name in classes}, notes=notes, root=source, read=read)


def _called(by_split: dict[str, Path], classes: list[str], usual: str) -> tuple[dict[str, list[str]], tuple[Path, ...]]:
    """Returns the class names by language, and their files. `usual`, the language of classes.txt, comes first."""
    called: dict[str, list[str]] = {}
    read: list[Path] = []
    sources: dict[str, Path] = {}
    for folder in by_split.values():
        files: dict[str, Path] = {}
        for place in (folder, folder.parent) if folder.name in USUAL else (folder,):
            mine = {file.name.split(".")[1]: file for file in sorted(place.glob("classes.*.txt"))}
            for language, file in (*mine.items(), ("zh", place / "label_cn.txt"), (usual, place / "classes.txt")):
                if file.is_file():
                    files.setdefault(language, file)
        read += files.values()
        for language, file in files.items():
            found = read_names(file)
            if len(found) != len(classes):
                raise JclipError(
                    f"{file} has {len(found)} names for {len(classes)} classes: write one line per class, in the order "
                    "of the folders"
                )
            if called.setdefault(language, found) != found:
                raise JclipError(f"{file} has other class names than {sources[language]}: keep one of the two")
            sources.setdefault(language, file)
    if called and usual not in called and not all(name.isdecimal() for name in classes):
        called[usual] = [name.replace("_", " ") for name in classes]  # as without any file of names
    return dict(sorted(called.items(), key=lambda item: item[0] != usual)), tuple(read)


def classified(
    by_split: dict[str, Path],
    classes: dict[str, str],
    strict: bool = False,
    notes: tuple[tuple[str, str], ...] = (),
    several: bool = False,
    root: Path | None = None,
    read: Sequence[Path] = (),
) -> ClassReader:
    """Returns a reader of folders whose classes are known.

    Raises JclipError if a split has no image, or a class folder's name cannot be stored in a list.

    Args:
      by_split: folder of each split.
      classes: class names by folder name, in order.
      strict, notes: see `Reader`.
      several: True if an image may have several classes; its file is then in the folder of each, under the same name.
      root: folder that holds the splits; files in it are counted with the first split.
      read: files beside the folders that were read already.
    """
    items: dict[str, tuple[LabelledFile, ...]] = {}
    for split, folder in by_split.items():
        check_names(folder, classes)
        found: list[LabelledFile] = []
        others: list[LabelledFile] = []
        for label, name in enumerate(classes):
            for file, reason in class_files.files_of_class(folder / name) if (folder / name).is_dir() else ():
                (others if reason else found).append(LabelledFile(file, () if reason else (label,), reason))
        if not found:
            raise JclipError(f"{folder} has no CLASS/IMAGE.jpg: name a folder with a folder for each class")
        places = [folder] if items or root is None or root == folder else [folder, root]
        others += [
            LabelledFile(file, (), reason) for place in places for file, reason in class_files.outside(place, read)
        ]
        items[split] = (*(_merged(found) if several else found), *others)
    files = tuple(item.file for each in items.values() for item in each if item.labels)
    return ClassReader(LABELLED, files, strict, tuple(classes.values()), items, notes=notes)


def _merged(found: Sequence[LabelledFile]) -> list[LabelledFile]:
    """Merges items with the same file name and bytes into one with all their classes. Sorts by file name."""
    merged: dict[Path, LabelledFile] = {}
    named: dict[str, list[Path]] = {}
    for item in found:
        same = named.setdefault(item.file.name, [])
        first = next((each for each in same if filecmp.cmp(each, item.file, shallow=False)), None)
        if first is None:
            same.append(item.file)
            merged[item.file] = item
        else:
            merged[first] = merged[first]._replace(labels=merged[first].labels + item.labels)
    return sorted(merged.values(), key=lambda item: item.file.name)


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise JclipError(f"there is no folder {folder}: name one that has a folder for each class")
    return in_order(class_files.class_folders(folder))


@dataclass(frozen=True)
class _Part:
    split: str
    start: int
    items: tuple[LabelledFile, ...]

    def records(self) -> Iterator[Found | Lost | Beside]:
        for number, (file, labels, reason) in enumerate(self.items, self.start):
            place = str(Path(*file.parts[-3:]))
            if reason in class_files.BESIDE:
                yield Beside(place, reason)
            elif reason:
                yield Lost(place, reason)
            else:
                yield self._picture(file, place, labels, number)

    def _picture(self, file: Path, place: str, labels: tuple[int, ...], number: int) -> Found | Lost:
        try:
            image = read_regular(file, LARGEST_PICTURE)
        except Refused as error:
            return Lost(place, error.reason)
        except OSError as error:
            raise unreadable(file, error) from None
        return Found(place, StoredLabelled(image, labels, number))
