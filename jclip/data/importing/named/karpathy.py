"""Flickr30k and MS-COCO with the splits of Karpathy and Fei-Fei (2015), and their English captions.

dataset_flickr30k.json     {"images": [{"filename", "split", "imgid", "sentences": [{"raw", "sentid"}, …]}, …]}
flickr30k-images/….jpg     or flickr30k-images.tar.gz, .zip, …

dataset_coco.json          the same
train2014, val2014         COCO's images; without train2014, only valid and test are read

COCO's split "restval", images of val2014 that are neither in valid nor in test, is part of train, as in later papers.
Some images have six or seven captions; all are kept.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jclip.data.importing.downloads import Packed, find_download, find_optional, folder_with
from jclip.data.importing.lines import integer
from jclip.data.importing.listed import Entry, ListedReader, listed
from jclip.data.importing.named.coco import PARTS, coco_file, coco_part
from jclip.data.importing.parts import Reading
from jclip.data.importing.splits import LeftOut, choose_splits
from jclip.data.sources.kinds import PAIRS
from jclip.errors import JclipError, unreadable
from jclip.io.json_files import read_object

_NAMES = {"train": "train", "restval": "train", "val": "valid", "test": "test"}
_SPLITS = ("train", "valid", "test")
_LARGEST = 1 << 30  # bytes; COCO's has 0.14 GB
_FROM = "Karpathy's caption_datasets.zip"


def open_flickr30k(downloads: Path, reading: Reading) -> Packed:
    """Opens the two downloads. Raises JclipError if one is missing."""
    captions = find_download(downloads, "dataset_flickr30k.json", _FROM)
    pictures = find_download(downloads, "flickr30k-images", "Flickr30k's authors, who ask you to fill in a form")
    splits = choose_splits(captions, _SPLITS, reading)

    def make(file: Path, folder: Path) -> ListedReader:
        root: list[Path] = []  # listed once, because there may be many files

        def picture(name: str) -> Path:
            root[:] = root or [folder_with(folder, name)]
            return root[0] / name

        return _read(file, picture, splits)

    return Packed(PAIRS, (captions, pictures), True, (), make)


def open_coco(downloads: Path, reading: Reading) -> Packed:
    """Opens the captions, val2014, and train2014 if it exists. Raises JclipError if one that is needed is missing."""
    captions = find_download(downloads, "dataset_coco.json", _FROM)
    splits = choose_splits(captions, _SPLITS, reading)
    left_out: LeftOut = ()
    if not reading.splits and find_optional(downloads, "train2014") is None:
        splits, left_out = ("valid", "test"), (("train", f"{downloads} has no train2014"),)
    parts = PARTS if "train" in splits else ("val2014",)

    def make(file: Path, *folders: Path) -> ListedReader:
        coco = dict(zip(parts, folders, strict=True))
        return _read(file, lambda name: coco_file(name, coco), splits, left_out)

    return Packed(PAIRS, (captions, *(coco_part(downloads, part) for part in parts)), True, (), make)


def _read(
    captions: Path, picture: Callable[[str], Path], splits: tuple[str, ...], left_out: LeftOut = ()
) -> ListedReader:
    entries: dict[str, list[Entry]] = {split: [] for split in splits}
    try:
        for number, image in enumerate(read_object(captions, "as Karpathy's splits", largest=_LARGEST)["images"]):
            split = _NAMES[image["split"]]
            if split in entries:
                entries[split].append(_entry(image, f"{captions.name}, images[{number}]", picture))
    except JclipError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise unreadable(captions, error, "as Karpathy's splits") from None
    return listed(entries, left_out)


def _entry(image: dict[str, Any], place: str, picture: Callable[[str], Path]) -> Entry:
    sentences = image["sentences"]
    ids = tuple(integer(sentence["sentid"], "sentid", place) for sentence in sentences)
    captions = tuple(str(sentence["raw"]) for sentence in sentences)
    number = integer(image["imgid"], "imgid", place)
    return Entry(place, picture(str(image["filename"])), number, captions, ids, ("en",) * len(ids))
