"""The 20 classification sets of ELEVATER (Li et al. 2022) with Chinese labels, as Chinese-CLIP publishes them.

    NAME.zip, or ELEVATER_all.zip with a NAME.zip for each set
      NAME/label_cn.txt, NAME/label.txt          a class in each line, Chinese and English
      NAME/{train,test}/{0,1,…} or {000,001,…}   images of a class; the folder's name is the line number, from 0
      NAME/index.json                            in some sets: the order that the benchmark's server expects

The label files and index.json are copied to the data folder. An image of several classes, as in VOC, is in the folder
of each under one name, and becomes one record.
"""

import json
from pathlib import Path

from jclip.data.elevater import counts
from jclip.data.importing.archives import unpack_once
from jclip.data.importing.class_folders import classified
from jclip.data.importing.downloads import Packed, find_download, find_optional, folder_with
from jclip.data.importing.named.chinese_clip import FROM
from jclip.data.importing.parts import Reader, Reading
from jclip.data.importing.splits import choose_splits
from jclip.data.sources.class_names import LARGEST, read_names
from jclip.data.sources.kinds import LABELLED
from jclip.errors import JclipError, unreadable
from jclip.io.reading import read_regular

_ALL = "ELEVATER_all"


def open_elevater(name: str, downloads: Path, reading: Reading) -> Packed:
    """Opens a set. Raises JclipError if it is missing."""
    found, whole = find_optional(downloads, name), find_optional(downloads, _ALL)
    if found is None and whole is not None:
        if not whole.is_dir():
            return Packed(LABELLED, (whole,), True, (), _Make(name, reading, inside=True), f"{name}.zip")
        downloads = whole
    found = find_download(downloads, name, FROM)
    return Packed(LABELLED, (found,), True, (), _Make(name, reading))


class _Make:
    """Function that makes a reader of a set's folder, or, with `inside`, of a folder that holds its archive."""

    def __init__(self, name: str, reading: Reading, inside: bool = False):
        self._name, self._reading, self._inside = name, reading, inside

    def __call__(self, folder: Path) -> Reader:
        if self._inside:
            archive = f"{self._name}.zip"
            folder = unpack_once(folder_with(folder, archive) / archive, folder.parent)
        root = folder_with(folder, "label_cn.txt")
        labels = {language: _labels(root / file, self._name) for language, file in _FILES.items()}
        if len(labels["zh"]) != len(labels["en"]):
            raise JclipError(f"{root}: label_cn.txt and label.txt differ in length: fetch the archive again")
        splits = [split for split in ("train", "test") if (root / split).is_dir()]
        if not splits:
            raise JclipError(f"{root} has neither train nor test: fetch it again from {FROM}")
        chosen = choose_splits(root, splits, self._reading)
        classes = _classes([root / split for split in chosen], len(labels["zh"]), root / "label_cn.txt")
        notes = {"labels.json": json.dumps(labels, ensure_ascii=False, indent=1) + "\n"}
        if (root / "index.json").is_file():
            notes["index.json"] = _text(root / "index.json", "as the order of the images")
        several = self._name == "voc-2007-classification"
        return classified({split: root / split for split in chosen}, classes, True, tuple(notes.items()), several)


_FILES = {"zh": "label_cn.txt", "en": "label.txt"}


def _text(file: Path, what: str) -> str:
    try:
        return read_regular(file, LARGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error, what) from None


def _labels(file: Path, name: str) -> list[str]:
    labels = read_names(file)
    if len(labels) not in counts(name):
        wanted = " or ".join(map(str, counts(name)))
        raise JclipError(f"{file} has {len(labels)} labels, but {name} has {wanted} classes: fetch it again")
    return labels


def _classes(folders: list[Path], count: int, labels: Path) -> dict[str, str]:
    """Returns the folder names by class: single digits for up to ten classes, three for more."""
    names = [f"{number:03d}" if count > 10 else str(number) for number in range(count)]
    for folder in folders:
        for odd in sorted({each.name for each in folder.iterdir() if each.is_dir()} - set(names)):
            raise JclipError(f"{folder / odd}: no line of {labels.name} belongs to it: fetch the archive again")
    return {name: name for name in names}
