"""Flickr30k with Karpathy's splits, and Flickr30K-CN as Chinese-CLIP's makers pack it.

dataset_flickr30k.json     {"images": [{"filename", "split", "imgid", "sentences": [{"raw", "sentid"}, …]}, …]}
flickr30k-images/….jpg     or flickr30k-images.tar.gz, .zip, …

Flickr30k-CN/{train,valid,test}_imgs.tsv, Flickr30k-CN/{train,valid,test}_texts.jsonl
"""

import json
from pathlib import Path
from typing import Any

from jclip.data.importing.downloads import Packed, find, holding
from jclip.data.importing.lines import integer
from jclip.data.importing.listed import Entry, ListedReader, listed
from jclip.data.importing.named.muge import packed_cn_clip
from jclip.data.importing.parts import Reading
from jclip.data.importing.splits import choose_splits
from jclip.data.kinds import PAIRS
from jclip.errors import JclipError, unreadable

_NAMES = {"train": "train", "val": "valid", "test": "test"}


def open_flickr30k_cn(downloads: Path, reading: Reading) -> Packed:
    """Opens Flickr30k-CN.zip, or a folder Flickr30k-CN.

    Raises:
      JclipError: it is missing.
    """
    found = find(downloads, "Flickr30k-CN", "the Hugging Face data set OFA-Sys/chinese-clip-eval")
    return packed_cn_clip(found, reading.splits or ("train", "valid", "test"))


def open_flickr30k(downloads: Path, reading: Reading) -> Packed:
    """Opens the two downloads.

    Raises:
      JclipError: one is missing.
    """
    splits = find(downloads, "dataset_flickr30k.json", "Karpathy's caption_datasets.zip")
    pictures = find(downloads, "flickr30k-images", "Flickr30k's makers, who ask for a form to be filled in")

    def make(captions: Path, folder: Path) -> ListedReader:
        return _read(captions, folder, reading)

    return Packed(PAIRS, (splits, pictures), True, (), make)


def _read(captions: Path, folder: Path, reading: Reading) -> ListedReader:
    entries: dict[str, list[Entry]] = {}
    try:
        images = json.loads(captions.read_text(encoding="utf-8"))["images"]
        root = holding(folder, images[0]["filename"])
        for number, image in enumerate(images):
            split = _NAMES[image["split"]]
            entries.setdefault(split, []).append(_entry(image, f"{captions.name}, images[{number}]", root))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, JclipError):
            raise
        raise unreadable(captions, error, "as Karpathy's splits") from None
    chosen = choose_splits(captions, list(entries), reading)
    return listed({split: entries[split] for split in chosen})


def _entry(image: dict[str, Any], place: str, root: Path) -> Entry:
    sentences = image["sentences"]
    ids = tuple(integer(sentence["sentid"], "sentid", place) for sentence in sentences)
    captions = tuple(str(sentence["raw"]) for sentence in sentences)
    number = integer(image["imgid"], "imgid", place)
    return Entry(place, root / image["filename"], number, captions, ids, ("en",) * len(ids))
