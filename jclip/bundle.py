"""A model as a folder: config.json, the tokenizer's files, and the parameters.

Preprocessing and tokenizer travel with the weights, so that evaluation cannot use the wrong ones. Parameters lie in
one safetensors file under their paths ("image/layers/attention/query/kernel"), running statistics under "batch_stats/".
They keep the dtype in which they came; in use they are float32.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np

from jclip import rules
from jclip.config import from_json, to_json
from jclip.data.images import Preprocessing
from jclip.data.text import Tokenizer, load_tokenizer
from jclip.errors import JclipError
from jclip.files import whole_folder
from jclip.models.build import ModelConfig, shapes
from jclip.plain import as_json
from jclip.tensors import Lazy, open_safetensors, write_safetensors

Leaf = TypeVar("Leaf")

_FORMAT = 1
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
    """Writes a bundle's files into an empty folder that is there."""
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
    try:
        record = json.loads(config_file.read_text(encoding="utf-8"))
        version, model = record["format"], record["model"]
        preprocessing, context_length = record["preprocessing"], record["context_length"]
    except (ValueError, KeyError, TypeError) as error:
        raise JclipError(f"{config_file} is damaged ({error}): export the bundle again") from None
    if version != _FORMAT:
        raise JclipError(f"{config_file} has format {version}, this jclip reads {_FORMAT}: use the jclip that wrote it")
    tensors = open_safetensors(folder / _PARAMETERS)
    if not isinstance(context_length, int):
        raise JclipError(f"{config_file}: context_length is {context_length!r}, but must be a whole number")
    config: ModelConfig = from_json(cast(Any, ModelConfig), model, str(config_file))
    _check_shapes(config, tensors, folder / _PARAMETERS)
    params, stats = split_statistics(tensors)
    return Bundle(
        config=config,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=load_tokenizer(folder / _TOKENIZER),
        preprocessing=from_json(cast(Any, Preprocessing | None), preprocessing, f"{config_file}: preprocessing"),
        context_length=context_length,
        provenance=record.get("provenance", {}),
    )


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


def _check_shapes(config: ModelConfig, tensors: Mapping[str, Lazy], file: Path) -> None:
    expected = tensor_shapes(config)
    for path in sorted(expected.keys() | tensors.keys()):
        found: Any = tensors[path].shape if path in tensors else "absent"
        should: Any = expected.get(path, "absent")
        if found != should:
            raise JclipError(f"{file}: {path} is {found}, but {_CONFIG} says {should}: the two are not of one model")
