"""COCO's own images, which several data sets use: train2014 and val2014, packed or not.

train2014/COCO_train2014_….jpg, val2014/COCO_val2014_….jpg    or train2014.zip, val2014.zip
"""

from collections.abc import Mapping
from pathlib import Path

from jclip.data.importing.downloads import find_download

PARTS = ("train2014", "val2014")


def coco_pictures(downloads: Path) -> tuple[Path, ...]:
    """Returns the folders or archives of `PARTS`, in order. Raises JclipError if one is missing."""
    return tuple(coco_part(downloads, part) for part in PARTS)


def coco_part(downloads: Path, part: str) -> Path:
    """Returns the folder or archive of one of `PARTS`. Raises JclipError if it is missing."""
    return find_download(downloads, part, "cocodataset.org")


def coco_file(name: str, coco: Mapping[str, Path]) -> Path:
    """Returns the file of an image named COCO_train2014_… or COCO_val2014_…; `coco` has the folder of each part."""
    part = "train2014" if "train2014" in name else "val2014"
    inner = coco[part] / part
    return (inner if inner.is_dir() else coco[part]) / f"{name.removesuffix('.jpg')}.jpg"
