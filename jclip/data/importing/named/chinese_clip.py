"""MUGE and Flickr30K-CN as Chinese-CLIP publishes them: MUGE.zip and Flickr30k-CN.zip, with cn_clip's files.

    MUGE/{train,valid,test}_imgs.tsv, MUGE/{train,valid,test}_texts.jsonl   (lmdb/ beside them is not needed)
    Flickr30k-CN/{train,valid,test}_imgs.tsv, Flickr30k-CN/{train,valid,test}_texts.jsonl

MUGE's test split has no labels ("image_ids": []); only the organisers can score it. So only train and valid are read,
and the report says so.
"""

from dataclasses import replace
from pathlib import Path

from jclip.data.importing.cn_clip import open_cn_clip
from jclip.data.importing.downloads import Packed, find_download, folder_with
from jclip.data.importing.parts import Reader, Reading
from jclip.data.importing.splits import LeftOut
from jclip.data.sources.kinds import PAIRS
from jclip.errors import JclipError

FROM = "the Hugging Face data set OFA-Sys/chinese-clip-eval"


def open_muge(downloads: Path, reading: Reading) -> Packed:
    """Opens MUGE.zip, or a folder MUGE. Raises JclipError if it is missing, or the test split is asked for."""
    if "test" in (reading.splits or ()):
        raise JclipError("muge: the labels of its test split are not public: choose --splits from train, valid")
    found = find_download(downloads, "MUGE", FROM)
    left_out = () if reading.splits else (("test", "its labels are not public"),)
    return _packed(found, reading.splits or ("train", "valid"), left_out)


def open_flickr30k_cn(downloads: Path, reading: Reading) -> Packed:
    """Opens Flickr30k-CN.zip, or a folder Flickr30k-CN. Raises JclipError if it is missing."""
    return _packed(find_download(downloads, "Flickr30k-CN", FROM), reading.splits or ("train", "valid", "test"))


def _packed(found: Path, splits: tuple[str, ...], left_out: LeftOut = ()) -> Packed:
    """Returns a reader of an archive or a folder with cn_clip's files."""

    def make(folder: Path) -> Reader:
        root = folder_with(folder, f"{splits[0]}_imgs.tsv")
        return replace(open_cn_clip(root, Reading(splits, "zh"), strict=True), left_out=left_out)

    return Packed(PAIRS, (found,), True, (), make)
