"""Reads images with classes, for evaluation.

    FOLDER/003/a.jpg …            one folder for each class, in the order of their names, which may be numbers
    FOLDER/labels.tsv             PICTURE<tab>CLASS[,CLASS…] lines, for images of several classes
    FOLDER/test/003/a.jpg …       the same by split
    FOLDER/dataset_info.json, …   output of `jclip data import`, with class names in labels.json
    FOLDER/classes.zh.txt         class names in Chinese, one in each line; or cn_clip's label_cn.txt
    FOLDER/classes.txt            class names in any language

Files of class names may also be beside the folder of a split. Without them, the folders' names are the class names.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jclip.data.importing.lines import scan, text_of
from jclip.data.sources import class_files
from jclip.data.sources.class_names import check_distinct, in_order, read_names
from jclip.data.sources.folders import LabelledFolder, open_folder
from jclip.errors import JclipError
from jclip.evaluate.datasets.imported import StoredPictures
from jclip.images.preprocess import Picture

SPLITS = ("train", "valid", "val", "test")
_DIGITS = 5  # maximum length of a class number, because each number up to the largest is a class


@dataclass(frozen=True)
class ClassSet:
    """Images and their classes.

    Attributes:
      name: title for tables.
      pictures: paths, or images of a data folder.
      truth_nc: true for the classes of each image, at least one.
      keys: names or numbers of the classes in the data, by which their order is defined.
      folder: folder in which to look for files of class names.
      labels: class names by language; empty unless the data were imported.
      order: file with ELEVATER's order of the images; None unless the data were imported.
      left_out: files of the folder that are not among the images, with reasons.
    """

    name: str
    pictures: Sequence[Picture]
    truth_nc: npt.NDArray[np.bool_]
    keys: tuple[str, ...]
    folder: Path = Path()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    order: Path | None = None
    left_out: Sequence[class_files.ClassFile] = ()

    @property
    def note(self) -> str:
        """Remark on files left out, with the number and an example of each reason; empty without any."""
        if not self.left_out:
            return ""
        counts = Counter(each.reason for each in self.left_out)
        first = {each.reason: each.file for each in reversed(self.left_out)}
        said = (f"{count:,} x {reason} ({Path(*first[reason].parts[-2:])})" for reason, count in sorted(counts.items()))
        return f"{len(self.left_out):,} file(s) left out: {', '.join(said)}."

    @property
    def single(self) -> bool:
        """True if every image has exactly one class."""
        return bool((self.truth_nc.sum(axis=1) == 1).all())

    @property
    def classes_n(self) -> npt.NDArray[np.int64]:
        """Number of each image's first class."""
        return self.truth_nc.argmax(axis=1)


def splits_in(place: Path) -> list[str]:
    """Returns the splits of a folder; empty if it holds classes directly."""
    if (place / "dataset_info.json").is_file():
        return list(open_folder(place).info.splits)
    names = class_files.class_folders(place)
    return names if set(names) <= set(SPLITS) else []


def read_classes(place: Path, split: str = "test") -> ClassSet:
    """Reads a folder in any of the formats above.

    `split` selects a split if the folder has any. Raises JclipError, with file and line, if the folder or an image is
    missing, a class is empty, or a label is not valid.
    """
    if not place.is_dir():
        raise JclipError(f"{place} does not exist: name a folder with a folder for each class")
    if (place / "dataset_info.json").is_file():
        return _read_imported(place, split)
    if (place / "labels.tsv").is_file():
        return _read_labels(place / "labels.tsv")
    if splits := splits_in(place):
        if split not in splits:
            raise JclipError(f"{place} has no split {split!r}: it has {', '.join(splits)}; choose one with --split")
        return read_classes(place / split)
    return _read_folders(place)


def _read_folders(place: Path) -> ClassSet:
    names = in_order(class_files.class_folders(place))
    if len(names) < 2:
        raise JclipError(f"{place} has {len(names)} class folders: give it one for each class, or a labels.tsv")
    check_distinct(place, names)
    pictures: list[Path] = []
    classes: list[int] = []
    left_out: list[class_files.ClassFile] = []
    for number, name in enumerate(names):
        found = class_files.files_of_class(place / name)
        mine = [each.file for each in found if not each.reason]
        left_out += [each for each in found if each.reason]
        if not mine:
            why = f" ({found[0].file.name[:60]!r}: {found[0].reason})" if found else ""
            raise JclipError(f"{place / name} holds no image{why}: add one, or remove the folder")
        pictures += mine
        classes += [number] * len(mine)
    read = [place / "label_cn.txt", place / "classes.txt", *place.glob("classes.*.txt")]
    left_out += class_files.outside(place, read)
    truth_nc = np.eye(len(names), dtype=bool)[classes]
    return ClassSet(str(place), pictures, truth_nc, tuple(names), place, left_out=tuple(left_out))


def _read_imported(place: Path, split: str) -> ClassSet:
    folder = LabelledFolder(str(place), split)
    records, keys = folder.open(), folder.classes()
    truth_nc = np.zeros((len(records), len(keys)), bool)
    for row in range(len(records)):
        truth_nc[row, list(records[row].labels)] = True
    name = f"{place} ({split})"
    pictures = StoredPictures(range(len(records)), lambda row: records[row].picture, name)
    index = place / "index.json"
    order = index if split == "test" and index.is_file() else None
    return ClassSet(name, pictures, truth_nc, tuple(keys), place, folder.labels(), order)


def _read_labels(file: Path) -> ClassSet:
    names = _names_in(file.parent, "")
    keys = read_names(names) if names else []
    rows: list[tuple[Path, list[int]]] = []
    most = -1
    for line in scan(file):
        text, number = text_of(file, line), line.number
        name, tab, said = text.partition("\t")
        path = file.parent / name
        if not tab or not said.strip():
            raise JclipError(f"{file}, line {number}: expected PICTURE<tab>CLASS[,CLASS], found {text[:60]!r}")
        if not path.is_file():
            raise JclipError(f"{file}, line {number}: there is no image {path}")
        classes = []
        for word in (part.strip() for part in said.split(",")):
            if keys.count(word) > 1:
                raise JclipError(f"{file}, line {number}: {word[:60]!r} names two classes in {names}: give its number")
            if word not in keys and not (word.isdecimal() and len(word) <= _DIGITS):
                wanted = f"neither a number of up to {_DIGITS} digits nor a name in classes.txt"
                raise JclipError(f"{file}, line {number}: {word[:60]!r} is {wanted}")
            classes.append(keys.index(word) if word in keys else int(word))
        if keys and max(classes) >= len(keys):
            raise JclipError(f"{file}, line {number}: class {max(classes)} is not among the {len(keys)} of {names}")
        most = max(most, *classes)
        rows.append((path, classes))
    if not rows:
        raise JclipError(f"{file} holds no image: write lines PICTURE<tab>CLASS")
    keys = keys or [str(number) for number in range(most + 1)]
    truth_nc = np.zeros((len(rows), len(keys)), bool)
    for row, (_, classes) in enumerate(rows):
        truth_nc[row, classes] = True
    return ClassSet(str(file.parent), [path for path, _ in rows], truth_nc, tuple(keys), file.parent)


def class_names(data: ClassSet, language: str, file: Path | None = None) -> list[str]:
    """Returns the class names in a language (BCP 47); in any language for "".

    They are the lines of `file`. Without `file` they come from a file beside the images, else from the import, else
    from the folders' names. Raises JclipError if their number is wrong, a line is empty, or there are no names in the
    language.
    """
    found = file or _names_in(data.folder, language)
    if found is not None:
        return _checked_number(read_names(found), str(found), data)
    if data.labels and language in ("", *data.labels):
        chosen = language or next(iter(data.labels))
        return _checked_number(list(data.labels[chosen]), f"{data.folder / 'labels.json'}, {chosen!r},", data)
    if data.labels or all(key.isdecimal() for key in data.keys):
        wanted = f"classes.{language}.txt" if language else "classes.txt"
        known = f"names its classes in {', '.join(data.labels)}" if data.labels else "numbers its classes"
        raise JclipError(f"{data.name} only {known}: give their names in {data.folder / wanted}, or with --classes")
    return [key.replace("_", " ") for key in data.keys]


def has_names(data: ClassSet, language: str) -> bool:
    """Returns True if the data have class names in a language; for "", if they have a classes.txt."""
    if not language:
        return _names_in(data.folder, "") is not None
    found = _names_in(data.folder, language)
    return language in data.labels or (found is not None and found.name != "classes.txt")


def _checked_number(names: list[str], where: str, data: ClassSet) -> list[str]:
    if len(names) != len(data.keys):
        raise JclipError(
            f"{where} has {len(names)} names, but {data.name} has {len(data.keys)} classes: give one line for each "
            "class, in the order of the folders"
        )
    return names


def _names_in(folder: Path, language: str) -> Path | None:
    names = [f"classes.{language}.txt"] if language else []
    names += ["label_cn.txt"] if language == "zh" else []
    places = [folder, folder.parent] if folder.name in SPLITS else [folder]
    files = (place / name for place in places for name in [*names, "classes.txt"])
    return next((file for file in files if file.is_file()), None)
