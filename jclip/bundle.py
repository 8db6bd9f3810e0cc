"""A model as a folder: config.json, the tokenizer's files, and the parameters.

Preprocessing and tokenizer travel with the weights, so that evaluation cannot use the wrong ones. Parameters lie in
one safetensors file under their paths ("image/layers/attention/query/kernel"), running statistics under "batch_stats/".
They keep the dtype in which they came; in use they are float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np

from jclip import rules
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
_LARGEST_CONFIG = 16 << 20  # bytes
_CONFIG, _TOKENIZER, _PARAMETERS, _STATS = "config.json", "tokenizer", "parameters.safetensors", "batch_stats/"


@dataclass
class Bundle:
    """A model with everything needed to use it.

    Attributes:
      config: the towers.
      params: nested parameters; host arrays, or `Lazy` ones that are read when they are asked for.
      tokenizer: of the text tower.
      preprocessing: of pictures; None for a text encoder alone.
      context_length: tokens, special ones included, that the text tower was trained with.
      stats: batch-norm statistics; empty for models without.
      provenance: JSON-ready facts: which run, stage and step made it, or which checkpoint it was converted from.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    preprocessing: Preprocessing | None
    context_length: int
    stats: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Any]:
        """{path: array} of the parameters, and of the statistics under "batch_stats/"."""
        stats = {_STATS + path: leaf for path, leaf in rules.paths_of(self.stats).items()}
        return rules.paths_of(self.params) | stats


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """{path: shape} of all that a bundle of this model holds, statistics under "batch_stats/"."""
    wanted = shapes(config)
    expected = {path: leaf.shape for path, leaf in rules.paths_of(wanted["params"]).items()}
    stats = rules.paths_of(wanted.get("batch_stats", {}))
    return expected | {_STATS + path: leaf.shape for path, leaf in stats.items()}


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle; an older one at the same place is replaced only when the new one is whole.

    Raises:
      JclipError: the place cannot be written to, or the disk is full.
    """
    with whole_folder(folder) as partial:
        write_files(bundle, partial)


def write_files(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle's files into an empty folder that is there.

    Raises:
      JclipError: as of `check_parts`; nothing has been written then.
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


def open_bundle(folder: Path | str) -> Bundle:
    """A bundle whose parameters are `Lazy`: checked against its configuration, but not read yet.

    Raises:
      JclipError: the folder is no bundle, or one of its files is missing or damaged; the file is named.
    """
    folder = Path(folder)
    config_file = folder / _CONFIG
    if not config_file.is_file():
        raise JclipError(f"{folder} is not a bundle: it has no {_CONFIG}")
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
    _check_inputs(config, preprocessing, context_length, f"{config_file}: ")
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
    """Holds the parts of a bundle against each other.

    Raises:
      JclipError: the preprocessing, the context length or the tokenizer is not for the towers; the field is named.
    """
    _check_inputs(bundle.config, bundle.preprocessing, bundle.context_length, "")
    check_tokenizer(bundle.config, bundle.tokenizer, "tokenizer: ")


def split_statistics(tensors: Mapping[str, Leaf]) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """{path: parameter} and {path: batch statistic} of a bundle's tensors."""
    stats = {path.removeprefix(_STATS): leaf for path, leaf in tensors.items() if path.startswith(_STATS)}
    return {path: leaf for path, leaf in tensors.items() if not path.startswith(_STATS)}, stats


def load_bundle(folder: Path | str) -> Bundle:
    """A bundle with its parameters in memory, as float32 host arrays whatever dtype they are kept in.

    Raises:
      JclipError: as of `open_bundle`.
    """
    bundle = open_bundle(folder)
    return replace(bundle, params=read_float32(bundle.params), stats=read_float32(bundle.stats))


def read_float32(tree: dict[str, Any]) -> dict[str, Any]:
    """Nested `Lazy` tensors as float32 arrays; float16 and bfloat16 become float32 exactly."""
    return cast(dict[str, Any], jax.tree.map(_float32, tree))


def _float32(leaf: Lazy) -> np.ndarray:
    return leaf.read().astype(np.float32, copy=False)


def _check_inputs(config: ModelConfig, preprocessing: Preprocessing | None, context_length: int, where: str) -> None:
    """Holds what becomes the towers' inputs against the towers; `where` begins a message."""
    image = getattr(config, "image", None)
    if (image is None) != (preprocessing is None):
        has = "an image tower" if image else "no image tower"
        raise JclipError(f"{where}preprocessing does not fit: the model has {has}, export the bundle again")
    if image is not None and preprocessing is not None and preprocessing.size != image.image_size:
        raise JclipError(
            f"{where}preprocessing.size is {preprocessing.size}, but the image tower reads pictures of "
            f"{image.image_size}: they must be equal"
        )
    longest = longest_text(config)
    if not 3 <= context_length <= longest:
        raise JclipError(
            f"{where}context_length is {shown(str(context_length))}, but the text tower has positions for {longest} "
            f"tokens: give 3 to {longest}"
        )


def check_tokenizer(config: ModelConfig, tokenizer: Tokenizer, where: str) -> None:
    """Holds a tokenizer's ids against the text tower.

    Args:
      config: the model.
      tokenizer: in question.
      where: begins a message: its folder and ": ".

    Raises:
      JclipError: it has more tokens than the tower has embeddings, or pads with another id.
    """
    if tokenizer.vocab_size > config.text.vocab_size:
        raise JclipError(
            f"{where}it has {tokenizer.vocab_size} tokens, but the model has embeddings for {config.text.vocab_size}: "
            "it is another model's, put the model's own there"
        )
    pad_id = config.text.pad_id
    if pad_id is not None and pad_id != tokenizer.pad_id:
        raise JclipError(
            f"{where}it pads with id {tokenizer.pad_id}, but the text tower's pad_id is {pad_id}: it is another "
            "model's, put the model's own there"
        )


def longest_text(config: ModelConfig) -> int:
    """Returns the number of tokens for which the text tower has positions."""
    return config.text.longest


def _check_shapes(config: ModelConfig, tensors: Mapping[str, Lazy], file: Path) -> None:
    expected = tensor_shapes(config)
    for path in sorted(expected.keys() | tensors.keys()):
        found: Any = tensors[path].shape if path in tensors else "absent"
        should: Any = expected.get(path, "absent")
        if found != should:
            raise JclipError(f"{file}: {path} is {found}, but {_CONFIG} says {should}: the two are not of one model")
