"""MUGE's text-to-image retrieval, as Chinese-CLIP's makers pack it: MUGE.zip, with files as cn_clip reads them.

    MUGE/{train,valid,test}_imgs.tsv, MUGE/{train,valid,test}_texts.jsonl   (lmdb/ beside them is not needed)

The test split has no labels ("image_ids": []): its scores are the organisers' to give. So train and valid are read.
"""

from pathlib import Path

from jclip.data.importing.archives import Packed, find, holding
from jclip.data.importing.cn_clip import open_cn_clip
from jclip.data.importing.parts import Reader, Reading
from jclip.data.kinds import PAIRS
from jclip.errors import JclipError


def open_muge(downloads: Path, reading: Reading) -> Packed:
    """Opens MUGE.zip, or a folder MUGE.

    Raises:
      JclipError: it is missing, or the test split is asked for.
    """
    if "test" in (reading.splits or ()):
        raise JclipError("muge: the labels of its test split are not public: choose --splits from train, valid")
    found = find(downloads, "MUGE", "the Hugging Face data set OFA-Sys/chinese-clip-eval")
    return packed_cn_clip(found, Reading(reading.splits or ("train", "valid"), "zh"))


def packed_cn_clip(found: Path, reading: Reading) -> Packed:
    """A reader of an archive, or a folder, with files as cn_clip reads them."""

    def make(folder: Path) -> Reader:
        return open_cn_clip(holding(folder, f"{(reading.splits or ('test',))[0]}_imgs.tsv"), reading, strict=True)

    return Packed(PAIRS, (found,), True, (), make)
