"""Bundle: a model as a folder with config.json, the tokenizer's files, and the parameters.

Preprocessing and tokenizer are stored with the weights, so that evaluation cannot use the wrong ones. One safetensors
file holds the parameters by path ("image/layers/attention/query/kernel"), and batch statistics under "batch_stats/".
The file keeps the dtype of its source; models compute in float32.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np

from jclip import rules
from jclip.cache.digests import remember, remembered, stamp
from jclip.config import from_json, to_json
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.io.files import whole_folder
from jclip.io.json_files import entry, read_object
from jclip.io.safetensors import open_safetensors, write_safetensors
from jclip.io.tensors import Lazy
from jclip.models.build import ModelConfig, shapes
from jclip.plain import as_json, shown
from jclip.tokenizers.text import Tokenizer, load_tokenizer

Leaf = TypeVar("Leaf")

_FORMAT = 1
_IDENTITY = "bundle 1"  # another digest of the same contents needs another number
EXPORT_RECORD = "export.json"
"""File that marks a folder as an export, see `jclip.export.record`."""

_LARGEST_CONFIG = 16 << 20  # bytes
_CONFIG, _TOKENIZER, _PARAMETERS, _STATS = "config.json", "tokenizer", "parameters.safetensors", "batch_stats/"


@dataclass
class Bundle:
    """A model with everything needed to use it.

    Attributes:
      config: configuration of the model.
      params: nested parameters: host arrays, or `Lazy` ones, which are read on access.
      tokenizer: tokenizer of the text tower.
      preprocessing: preprocessing of images; None for a model without an image tower.
      context_length: maximum number of tokens of a text, special tokens included.
      stats: batch-norm statistics; empty for a model without batch norm.
      provenance: JSON-ready facts: the run, stage and step, or the converted checkpoint.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    preprocessing: Preprocessing | None
    context_length: int
    stats: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Any]:
        """Returns {path: array} of the parameters, and of the statistics under "batch_stats/"."""
        stats = {_STATS + path: leaf for path, leaf in rules.paths_of(self.stats).items()}
        return rules.paths_of(self.params) | stats

    def digest(self) -> str:
        """Returns the hex digest of everything that features depend on, read in blocks; provenance is excluded.

        It is the same for a bundle in memory and in any folder, and for parameters that are stored in another dtype
        with the same float32 values.
        """
        tensors = self.tensors()
        with ThreadPoolExecutor() as pool:
            digests = dict(zip(tensors, pool.map(_digest, tensors.values()), strict=True))
        parts = {
            "model": to_json(self.config, defaults=False),
            "preprocessing": to_json(self.preprocessing, defaults=False),
            "context_length": self.context_length,
            "tokenizer": self.tokenizer.fingerprint(),
            "tensors": digests,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape} of a bundle's tensors, statistics under "batch_stats/"."""
    wanted = shapes(config)
    expected = {path: leaf.shape for path, leaf in rules.paths_of(wanted["params"]).items()}
    stats = rules.paths_of(wanted.get("batch_stats", {}))
    return expected | {_STATS + path: leaf.shape for path, leaf in stats.items()}


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle. An older one in the same folder is replaced only when the new one is complete.

    Raises JclipError if the parts do not fit together, the folder cannot be written, or the disk is full.
    """
    with whole_folder(folder) as partial:
        write_files(bundle, partial)


def write_files(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle's files into an existing empty folder.

    Raises JclipError, before anything is written, if the parts do not fit together.
    """
    check_parts(bundle)
    tensors = {path: leaf if isinstance(leaf, Lazy) else np.asarray(leaf) for path, leaf in bundle.tensors().items()}
    record = {
        "format": _FORMAT,
        "model": to_json(bundle.config),
        "preprocessing": to_json(bundle.preprocessing),
        "context_length": bundle.context_length,
        "provenance": bundle.provenance,
    }
    write_safetensors(folder / _PARAMETERS, tensors)
    bundle.tokenizer.save(folder / _TOKENIZER)
    (folder / _CONFIG).write_text(as_json(record, indent=2) + "\n", encoding="utf-8")


class Origin(NamedTuple):
    """Folder of a bundle, and a text that changes when a file of the bundle is written or replaced."""

    folder: Path
    stamp: str

    @classmethod
    def of(cls, folder: Path) -> "Origin":
        """Returns the present origin. Call it before the bundle is read."""
        files = [folder / _CONFIG, folder / _PARAMETERS, *(folder / _TOKENIZER).glob("*")]
        return cls(folder, stamp(folder, files))

    def identity(self, digest: Callable[[], str]) -> str:
        """Returns the bundle's digest, which `digest` computes if the cache does not know it."""
        return remembered(_IDENTITY, self.folder, self.stamp, digest)

    def note(self, identity: str) -> None:
        """Notes the bundle's digest in the cache."""
        remember(_IDENTITY, self.folder, self.stamp, identity)


def is_bundle(path: Path) -> bool:
    """Returns True if a folder has a bundle's files."""
    return (path / _CONFIG).is_file() and (path / _PARAMETERS).is_file()


def open_bundle(folder: Path | str) -> Bundle:
    """Opens a bundle with `Lazy` parameters, whose names and shapes are checked against its configuration.

    Raises JclipError if the folder is not a bundle, or a file is missing or damaged. The message names the file.
    """
    folder = Path(folder)
    config_file = folder / _CONFIG
    if not config_file.is_file():
        if (folder / EXPORT_RECORD).is_file():
            raise JclipError(f"{folder} is an export, and this needs a bundle: name the bundle that it was made from")
        why = f"it has no {_CONFIG}" if folder.is_dir() else "there is no such folder"
        raise JclipError(f"{folder} is not a bundle: {why}. Train one, or convert a checkpoint: jclip convert SRC DST")
    record = read_object(config_file, largest=_LARGEST_CONFIG)
    for name in ("format", "model", "preprocessing", "context_length"):
        if name not in record:
            raise JclipError(f"{config_file} is damaged, it has no {name!r}: export the bundle again")
    if record["format"] != _FORMAT:
        version = shown(repr(record["format"]))
        raise JclipError(f"{config_file} has format {version}, this jclip reads {_FORMAT}: use the jclip that wrote it")
    context_length = entry(record, "context_length", int, config_file)
    provenance = entry({"provenance": {}, **record}, "provenance", dict, config_file)
    config: ModelConfig = from_json(cast(Any, ModelConfig), record["model"], f"{config_file}: model")
    preprocessing: Preprocessing | None = from_json(
        cast(Any, Preprocessing | None), record["preprocessing"], f"{config_file}: preprocessing"
    )
    check_inputs(config, preprocessing, context_length, f"{config_file}: ")
    tensors = open_safetensors(folder / _PARAMETERS)
    _check_shapes(config, tensors, folder / _PARAMETERS)
    tokenizer = load_tokenizer(folder / _TOKENIZER)
    check_tokenizer(config, tokenizer, f"{folder / _TOKENIZER}: ")
    params, stats = split_statistics(tensors)
    return Bundle(
        config=config,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        context_length=context_length,
        provenance=provenance,
    )


def check_parts(bundle: Bundle) -> None:
    """Raises JclipError, naming the field, if preprocessing, context length or tokenizer do not fit the towers."""
    check_inputs(bundle.config, bundle.preprocessing, bundle.context_length, "")
    check_tokenizer(bundle.config, bundle.tokenizer, "tokenizer: ")


def split_statistics(tensors: Mapping[str, Leaf]) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """Splits a bundle's tensors into {path: parameter} and {path: batch statistic}."""
    stats = {path.removeprefix(_STATS): leaf for path, leaf in tensors.items() if path.startswith(_STATS)}
    return {path: leaf for path, leaf in tensors.items() if not path.startswith(_STATS)}, stats


def load_bundle(folder: Path | str) -> Bundle:
    """Opens a bundle as `open_bundle` does, and reads its parameters and statistics as float32 host arrays."""
    bundle = open_bundle(folder)
    read = partial(jax.tree.map, lambda leaf: leaf.read().astype(np.float32, copy=False))
    return replace(bundle, params=read(bundle.params), stats=read(bundle.stats))


def check_inputs(config: ModelConfig, preprocessing: Preprocessing | None, context_length: int, where: str) -> None:
    """Raises JclipError, beginning with `where`, if preprocessing or context length do not fit the towers."""
    image = getattr(config, "image", None)
    if (image is None) != (preprocessing is None):
        has = "an image tower" if image else "no image tower"
        raise JclipError(f"{where}preprocessing does not fit: the model has {has}; export the bundle again")
    if image is not None and preprocessing is not None and preprocessing.size != image.image_size:
        raise JclipError(
            f"{where}preprocessing.size is {preprocessing.size}, but the image tower reads images of "
            f"{image.image_size} pixels: they must be equal"
        )
    longest = config.text.longest
    if not 3 <= context_length <= longest:
        raise JclipError(
            f"{where}context_length is {shown(str(context_length))}, but the text tower has positions for {longest} "
            f"tokens: give 3 to {longest}"
        )


def check_tokenizer(config: ModelConfig, tokenizer: Tokenizer, where: str) -> None:
    """Raises JclipError, beginning with `where`, if a tokenizer has too many tokens or the wrong padding id."""
    if tokenizer.vocab_size > config.text.vocab_size:
        raise JclipError(
            f"{where}it has {tokenizer.vocab_size} tokens, but the model has embeddings for {config.text.vocab_size}: "
            "use the model's own tokenizer"
        )
    pad_id = config.text.pad_id
    if pad_id is not None and pad_id != tokenizer.pad_id:
        raise JclipError(
            f"{where}it pads with id {tokenizer.pad_id}, but the text tower's pad_id is {pad_id}: use the model's "
            "own tokenizer"
        )


def _digest(tensor: Any) -> str:
    """Returns the hex digest of a tensor's shape and float32 values."""
    lazy = tensor if isinstance(tensor, Lazy) else Lazy.of(np.asarray(tensor))
    found = hashlib.sha256(repr(tuple(map(int, lazy.shape))).encode())
    for piece in lazy.pieces():
        found.update(piece.astype("<f4", copy=False).data)
    return found.hexdigest()


def _check_shapes(config: ModelConfig, tensors: Mapping[str, Lazy], file: Path) -> None:
    expected = tensor_shapes(config)
    for path in sorted(expected.keys() | tensors.keys()):
        found: Any = tensors[path].shape if path in tensors else "absent"
        should: Any = expected.get(path, "absent")
        if found != should:
            raise JclipError(
                f"{file}: {path} is {found}, but {_CONFIG} says {should}: the two files are of different models"
            )
