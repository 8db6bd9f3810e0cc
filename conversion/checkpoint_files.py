"""Files of a checkpoint: finds the weights, and hashes files for the passport."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jclip.bundle import EXPORT_RECORD
from jclip.errors import JclipError
from jclip.io.json_files import read_json
from jclip.plain import shown

WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Usual names of weight files, preferred ones first: safetensors load faster."""
ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
"""Endings of weight files with other names."""
SMALL = ["*.json", "*.txt", "*.model", "*.gz"]
"""Patterns of the other files that a conversion may read: configurations and vocabularies."""
_INDEX = ".index.json"


def weights_at(place: Path) -> Path:
    """Returns the file with the weights, or the index of their shards, at a file or in a folder.

    Raises JclipError if it does not exist, has no weights, or has several files to choose from.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise JclipError(f"{place} does not exist: give a file, a folder, or hf://ORG/NAME")
    if (place / EXPORT_RECORD).is_file():
        raise JclipError(f"{place} is an export: name the bundle that it was made from")
    for name in WEIGHTS:
        if (place / name).is_file():
            return place / name
    others = sorted(file for file in place.iterdir() if file.suffix in ENDINGS and file.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        raise JclipError(f"{place} holds several weight files: name one of {', '.join(each.name for each in others)}")
    raise JclipError(f"{place} holds no weights: expected {', '.join(WEIGHTS)} or a .pt")


def files_at(place: Path) -> tuple[Path, list[Path]]:
    """Returns a folder, and the files in it that a conversion of `place` may read.

    Raises JclipError if `weights_at` or `shards` refuses it.
    """
    weights = weights_at(place)
    folder, files = weights.parent, {weights, *shards(weights)}
    if place.is_dir() or place.name in WEIGHTS:
        beside = (file for where in (folder, *folder.glob("*/")) for pattern in SMALL for file in where.glob(pattern))
        files |= {file for file in beside if file.is_file()}
    return folder, sorted(files)


def shards(weights: Path) -> tuple[Path, ...]:
    """Returns the files with tensors: the file itself, or those that an index names.

    Raises JclipError if the index is damaged, or names a file that is missing or in another folder.
    """
    if not weights.name.endswith(_INDEX):
        return (weights,)
    try:
        names = sorted(set(read_json(weights)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise JclipError(f"{weights} has no weight_map, so it is not an index of shards: fetch it again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
            raise JclipError(f"{weights} names the file {name!r}, which is not beside it: fetch the index again")
        if not (weights.parent / name).is_file():
            raise JclipError(f"{weights} names the file {shown(name)}, which is missing: fetch it")
    return tuple(weights.parent / name for name in names)


def shard_pattern(weights: str) -> str:
    """Returns a glob pattern for the file of a name in `WEIGHTS`, or for the shards of an index."""
    if not weights.endswith(_INDEX):
        return weights
    stem, ending = weights.removesuffix(_INDEX).rsplit(".", 1)
    return f"{stem}-*.{ending}"


def fingerprints(files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Returns the passport's name, size in bytes and sha256 of each file; `files` maps these names to paths."""
    found = []
    for name, file in sorted(files.items()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found.append({"name": name, "bytes": file.stat().st_size, "sha256": digest})
    return found
