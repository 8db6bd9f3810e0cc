"""COCO-CN (Li et al. 2018), which its authors send on request, with COCO's own images.

    coco-cn-version1805v1.1/    or .tar.gz
      coco-cn_{train,val,test}.txt               an image's name in each line: COCO_val2014_000000000042
      imageid.human-written-caption.txt          COCO_val2014_000000000042#0<tab>caption
      imageid.manually-translated-caption.txt    the same, for the 5,000 captions of the test split
    train2014, val2014                           COCO's images

"COCO-CN 1K" (coco-cn) scores the 1,000 test images with the 1,053 captions that were written for them. "5K"
(coco-cn-5k) scores them with their five translated captions each.
"""

from collections.abc import Mapping
from pathlib import Path

from jclip.data.importing.downloads import Packed, find_download, folder_with
from jclip.data.importing.lines import scan, text_of
from jclip.data.importing.listed import Entry, ListedReader, listed
from jclip.data.importing.named.coco import PARTS, coco_file, coco_pictures
from jclip.data.importing.parts import Reading
from jclip.data.importing.splits import choose_splits
from jclip.data.sources.kinds import PAIRS
from jclip.errors import JclipError

_NAMES = {"train": "train", "valid": "val", "test": "test"}


def open_coco_cn(downloads: Path, reading: Reading, five: bool = False) -> Packed:
    """Opens the three downloads; with `five`, the translated captions of the test split instead of the written ones.

    Raises JclipError if one is missing.
    """
    lists = find_download(downloads, "coco-cn-version1805v1.1", "its authors: see the README of li-xirong/coco-cn")
    pictures = coco_pictures(downloads)
    present = ["test"] if five else list(_NAMES)
    splits = choose_splits(lists, present, reading)
    kind = "manually-translated" if five else "human-written"

    def make(folder: Path, *folders: Path) -> ListedReader:
        coco = dict(zip(PARTS, folders, strict=True))
        root = folder_with(folder, f"imageid.{kind}-caption.txt")
        captions = _captions(root / f"imageid.{kind}-caption.txt")
        return listed({split: _entries(root / f"coco-cn_{_NAMES[split]}.txt", captions, coco) for split in splits})

    return Packed(PAIRS, (lists, *pictures), True, (), make)


def _captions(file: Path) -> dict[str, list[tuple[int, str]]]:
    """Returns the captions of each image, each with its line number."""
    captions: dict[str, list[tuple[int, str]]] = {}
    for line in scan(file):
        name, tab, caption = text_of(file, line).partition("\t")
        picture, mark, _ = name.partition("#")
        if not tab or not mark:
            raise JclipError(f"{file}, line {line.number}: expected NAME#NUMBER<tab>CAPTION: fetch the file again")
        captions.setdefault(picture, []).append((line.number, caption))
    return captions


def _entries(file: Path, captions: dict[str, list[tuple[int, str]]], coco: Mapping[str, Path]) -> list[Entry]:
    entries = []
    for line in scan(file):
        name, place = text_of(file, line).strip(), f"{file.name}, line {line.number}"
        digits = name.rpartition("_")[2]
        if not digits.isdecimal():
            example = "COCO_val2014_000000000042"
            raise JclipError(f"{place}: {name[:40]!r} is not a name in COCO, such as {example}: fetch the file again")
        found = captions.get(name, [])
        texts, ids = tuple(caption for _, caption in found), tuple(number for number, _ in found)
        entries.append(Entry(place, coco_file(name, coco), int(digits), texts, ids, ("zh",) * len(ids)))
    return entries
