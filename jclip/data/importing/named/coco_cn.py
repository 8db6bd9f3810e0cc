"""COCO-CN (Li et al. 2018), which its makers send on request, on COCO's own pictures.

    coco-cn-version1805v1.1/    or .tar.gz
      coco-cn_{train,val,test}.txt               a picture's name in each line: COCO_val2014_000000000042
      imageid.human-written-caption.txt          COCO_val2014_000000000042#0<tab>caption
      imageid.manually-translated-caption.txt    the same; the 5,000 of the test split
    train2014/COCO_train2014_….jpg, val2014/COCO_val2014_….jpg    or train2014.zip, val2014.zip

"COCO-CN 1K" scores the 1,000 test pictures with the 1,053 captions that were written for them; "5K" with the five that
were translated for each.
"""

from pathlib import Path

from jclip.data.importing.downloads import Packed, find, holding
from jclip.data.importing.lines import scan, text_of
from jclip.data.importing.listed import Entry, ListedReader, listed
from jclip.data.importing.parts import Reading
from jclip.data.importing.splits import choose_splits
from jclip.data.kinds import PAIRS
from jclip.errors import JclipError

_NAMES = {"train": "train", "valid": "val", "test": "test"}
_COCO = "cocodataset.org"


def open_coco_cn(downloads: Path, reading: Reading, five: bool = False) -> Packed:
    """Opens the three downloads.

    Args:
      downloads, reading: as every format.
      five: the translated captions of the test split, rather than those that were written.

    Raises:
      JclipError: one is missing.
    """
    lists = find(downloads, "coco-cn-version1805v1.1", "its makers: see the README of li-xirong/coco-cn")
    pictures = coco_pictures(downloads)
    there = ["test"] if five else list(_NAMES)
    splits = choose_splits(lists, there, reading)
    kind = "manually-translated" if five else "human-written"

    def make(folder: Path, *coco: Path) -> ListedReader:
        root = holding(folder, f"imageid.{kind}-caption.txt")
        captions = _captions(root / f"imageid.{kind}-caption.txt")
        return listed({split: _entries(root / f"coco-cn_{_NAMES[split]}.txt", captions, coco) for split in splits})

    return Packed(PAIRS, (lists, *pictures), True, (), make)


def coco_pictures(downloads: Path) -> tuple[Path, Path]:
    """train2014 and val2014, packed or not.

    Raises:
      JclipError: one is missing.
    """
    return find(downloads, "train2014", _COCO), find(downloads, "val2014", _COCO)


def coco_file(name: str, coco: tuple[Path, ...]) -> Path:
    """The file of COCO_train2014_… or COCO_val2014_…, in the folders that train2014 and val2014 became."""
    folder, part = (coco[0], "train2014") if "train2014" in name else (coco[1], "val2014")
    inner = folder / part
    return (inner if inner.is_dir() else folder) / f"{name.removesuffix('.jpg')}.jpg"


def _captions(file: Path) -> dict[str, list[tuple[int, str]]]:
    """Of each picture, the captions, each with the number of its line."""
    captions: dict[str, list[tuple[int, str]]] = {}
    for line in scan(file):
        name, tab, caption = text_of(file, line).partition("\t")
        picture, mark, _ = name.partition("#")
        if not tab or not mark:
            raise JclipError(f"{file}, line {line.number}: expected NAME#NUMBER<tab>CAPTION: fetch the file again")
        captions.setdefault(picture, []).append((line.number, caption))
    return captions


def _entries(file: Path, captions: dict[str, list[tuple[int, str]]], coco: tuple[Path, ...]) -> list[Entry]:
    entries = []
    for line in scan(file):
        name, place = text_of(file, line).strip(), f"{file.name}, line {line.number}"
        digits = name.rpartition("_")[2]
        if not digits.isdecimal():
            raise JclipError(f"{place}: {name[:40]!r} is no name of COCO's, such as COCO_val2014_000000000042")
        found = captions.get(name, [])
        texts, ids = tuple(caption for _, caption in found), tuple(number for number, _ in found)
        entries.append(Entry(place, coco_file(name, coco), int(digits), texts, ids, ("zh",) * len(ids)))
    return entries
