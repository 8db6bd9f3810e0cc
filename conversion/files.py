"""The files of a checkpoint: which of them hold its weights, and the hash of each."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jclip.errors import JclipError
from jclip.io.json_files import read_json
from jclip.io.tensors import shown

# In the order of preference: safetensors are quicker to read and hold nothing but tensors.
WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Names under which a hub keeps weights."""
ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
"""Of files with weights under other names."""
_INDEX = ".index.json"


def weights_at(place: Path) -> Path:
    """The file with the weights, or the index of their shards.

    Args:
      place: a file or a folder.

    Raises:
      JclipError: nothing is there, or no weights, or several files of which none goes before the others.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise JclipError(f"there is nothing at {place}: give a file, a folder, or hf://ORG/NAME")
    for name in WEIGHTS:
        if (place / name).is_file():
            return place / name
    others = sorted(file for file in place.iterdir() if file.suffix in ENDINGS and file.is_file())
    if len(others) == 1:
        return others[0]
    what = f"several files of weights ({', '.join(file.name for file in others)}): name one" if others else "no weights"
    raise JclipError(f"{place} holds {what}" + ("" if others else f": expected {', '.join(WEIGHTS)} or a .pt"))


def shards(weights: Path) -> tuple[Path, ...]:
    """The files with tensors: the file itself, or those that an index names.

    Raises:
      JclipError: the index is none, leads elsewhere, or names a file that is not there.
    """
    if not weights.name.endswith(_INDEX):
        return (weights,)
    try:
        names = sorted(set(read_json(weights)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise JclipError(f"{weights} has no weight_map, so it is no index of a checkpoint: fetch it again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
            raise JclipError(f"{weights} names the file {name!r}, which is not beside it: refusing to look there")
        if not (weights.parent / name).is_file():
            raise JclipError(f"{weights} names the file {shown(name)}, which is not there: fetch what is missing")
    return tuple(weights.parent / name for name in names)


def shard_pattern(weights: str) -> str:
    """A pattern for the files that belong to one of `WEIGHTS`: itself, or an index' shards."""
    if not weights.endswith(_INDEX):
        return weights
    stem, ending = weights.removesuffix(_INDEX).rsplit(".", 1)
    return f"{stem}-*.{ending}"


def fingerprints(files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What a passport says of files: {name in the passport: file} -> their names, bytes and sha256."""
    return [
        {"name": name, "bytes": file.stat().st_size, "sha256": _sha256(file)} for name, file in sorted(files.items())
    ]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
