"""Record of an export: the file export.json in its folder.

    {"version": 1, "format": "onnx", "made_by": "jclip 0.1.0",
     "source": {"name": "chinese-clip", "identity": "5f1c…"},
     "model": {…}, "preprocessing": {…}, "context_length": 52, "embed_dim": 512, "similarity_scale": 100.0,
     "onnx": {…}}

"model" and "preprocessing" are as in a bundle's config.json. The entry named like the format is the format's own.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jclip import __version__
from jclip.bundle import EXPORT_RECORD
from jclip.config import from_json, to_json
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.io.json_files import entry, read_object
from jclip.models.build import ModelConfig
from jclip.plain import as_json, shown

RECORD = EXPORT_RECORD
_VERSION = 1
_LARGEST = 16 << 20  # bytes


@dataclass(frozen=True)
class Record:
    """Contents of export.json.

    Attributes:
      format: name of the format.
      name, identity: those of the source model, see `jclip.inference.Model`.
      config: configuration of the source model.
      preprocessing: preprocessing of images; None for a model without an image tower.
      context_length: maximum number of tokens of a text, special tokens included.
      embed_dim: width of the features.
      similarity_scale: factor on cosine similarities.
      own: entries of the format.
    """

    format: str
    name: str
    identity: str
    config: ModelConfig
    preprocessing: Preprocessing | None
    context_length: int
    embed_dim: int
    similarity_scale: float
    own: dict[str, Any]


def record_of(model: Model, form: str, own: dict[str, Any]) -> Record:
    """Returns the record of a model that a format has written; `own` are the format's entries."""
    bundle = model.bundle
    return Record(
        form,
        model.name,
        model.identity,
        bundle.config,
        bundle.preprocessing,
        bundle.context_length,
        model.embed_dim,
        model.similarity_scale,
        own,
    )


def is_export(folder: Path) -> bool:
    """Returns True if a folder has a record."""
    return (folder / RECORD).is_file()


def write_record(record: Record, folder: Path) -> None:
    """Writes export.json into a folder."""
    content = {
        "version": _VERSION,
        "format": record.format,
        "made_by": f"jclip {__version__}",
        "source": {"name": record.name, "identity": record.identity},
        "model": to_json(record.config),
        "preprocessing": to_json(record.preprocessing),
        "context_length": record.context_length,
        "embed_dim": record.embed_dim,
        "similarity_scale": record.similarity_scale,
        record.format: record.own,
    }
    (folder / RECORD).write_text(as_json(content, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record:
    """Reads export.json. Raises JclipError if it is missing, damaged, or of another version."""
    file = folder / RECORD
    if not file.is_file():
        raise JclipError(f"{folder} is not an export: it has no {RECORD}. Make one: jclip export BUNDLE {folder}")
    data = read_object(file, largest=_LARGEST)
    version = entry(data, "version", int, file)
    if version != _VERSION:
        raise JclipError(
            f"{file} has version {shown(str(version))}, this jclip reads {_VERSION}: use the jclip that wrote it"
        )
    form, source = entry(data, "format", str, file), entry(data, "source", dict, file)
    for name in ("model", "preprocessing"):
        if name not in data:
            raise JclipError(f"{file} has no {name}: export the model again")
    record = Record(
        form,
        entry(source, "name", str, f"{file}: source"),
        entry(source, "identity", str, f"{file}: source"),
        from_json(cast(Any, ModelConfig), data["model"], f"{file}: model"),
        from_json(cast(Any, Preprocessing | None), data["preprocessing"], f"{file}: preprocessing"),
        entry(data, "context_length", int, file),
        entry(data, "embed_dim", int, file),
        entry(data, "similarity_scale", float, file),
        entry(data, form, dict, file),
    )
    if record.embed_dim != record.config.embed_dim:
        raise JclipError(
            f"{file} has embed_dim {record.embed_dim}, but its model has {record.config.embed_dim}: export it again"
        )
    if not math.isfinite(record.similarity_scale):
        raise JclipError(f"{file}: similarity_scale is {record.similarity_scale}: export the model again")
    return record
