"""A model as a folder: config.json, the tokenizer's files, and the parameters.

Preprocessing and tokenizer travel with the weights, so that evaluation cannot use the wrong ones. Parameters lie in
one safetensors file under their paths ("image/layers/attention/query/kernel"), running statistics under "batch_stats/".
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jclip import rules
from jclip.config import from_json, to_json
from jclip.data.images import Preprocessing
from jclip.data.text import Tokenizer, load_tokenizer
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig, shapes

_FORMAT = 1
_CONFIG, _TOKENIZER, _PARAMETERS, _STATS = "config.json", "tokenizer", "parameters.safetensors", "batch_stats/"


@dataclass
class Bundle:
    """A model with everything needed to use it.

    Attributes:
      config: the towers.
      params: nested parameters, host arrays.
      stats: batch-norm statistics; empty for models without.
      tokenizer: of the text tower.
      preprocessing: of pictures.
      context_length: tokens, special ones included, that the text tower was trained with.
      provenance: JSON-ready facts: which run, stage and step made it.
    """

    config: DualEncoderConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    context_length: int
    stats: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle; an older one at the same place is replaced only when the new one is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    arrays = rules.paths_of(bundle.params)
    arrays |= {_STATS + path: leaf for path, leaf in rules.paths_of(bundle.stats).items()}
    save_file({path: np.array(leaf, order="C") for path, leaf in arrays.items()}, partial / _PARAMETERS)
    bundle.tokenizer.save(partial / _TOKENIZER)
    record = {
        "format": _FORMAT,
        "model": to_json(bundle.config),
        "preprocessing": to_json(bundle.preprocessing),
        "context_length": bundle.context_length,
        "provenance": bundle.provenance,
    }
    (partial / _CONFIG).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_bundle(folder: Path | str) -> Bundle:
    """Reads a bundle.

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
    try:
        arrays = load_file(folder / _PARAMETERS)
    except (OSError, SafetensorError) as error:
        raise JclipError(f"{folder / _PARAMETERS} cannot be read ({error}): export the bundle again") from None
    stats = {path.removeprefix(_STATS): leaf for path, leaf in arrays.items() if path.startswith(_STATS)}
    params = {path: leaf for path, leaf in arrays.items() if not path.startswith(_STATS)}
    if not isinstance(context_length, int):
        raise JclipError(f"{config_file}: context_length is {context_length!r}, but must be a whole number")
    config = from_json(DualEncoderConfig, model, str(config_file))
    _check_shapes(config, arrays, folder / _PARAMETERS)
    return Bundle(
        config=config,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=load_tokenizer(folder / _TOKENIZER),
        preprocessing=from_json(Preprocessing, preprocessing, str(config_file)),
        context_length=context_length,
        provenance=record.get("provenance", {}),
    )


def _check_shapes(config: DualEncoderConfig, arrays: dict[str, Any], file: Path) -> None:
    wanted = shapes(config)
    expected = {path: leaf.shape for path, leaf in rules.paths_of(wanted["params"]).items()}
    expected |= {_STATS + path: leaf.shape for path, leaf in rules.paths_of(wanted.get("batch_stats", {})).items()}
    for path in sorted(expected.keys() | arrays.keys()):
        found = arrays[path].shape if path in arrays else "absent"
        should = expected.get(path, "absent")
        if found != should:
            raise JclipError(f"{file}: {path} is {found}, but {_CONFIG} says {should}: the two are not of one model")
