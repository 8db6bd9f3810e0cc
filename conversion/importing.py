"""From a checkpoint to a model: detected, mapped and checked, but not read yet."""

import importlib.util
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from conversion.engine import Imported, import_tensors
from conversion.families.family import Family, Hints
from conversion.positions import resized
from conversion.processor import read_preprocessing
from conversion.sizes import Sizes
from conversion.source import Source, open_source, read_json, read_object, sha256
from jclip import rules
from jclip.bundle import Bundle, split_statistics, tensor_shapes
from jclip.data.images import Preprocessing
from jclip.data.text import Tokenizer, load_tokenizer
from jclip.errors import JclipError
from jclip.models.build import ModelConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.transformer import Activation
from jclip.models.vit import VitConfig
from jclip.tensors import Lazy, shown

POSITIONS = "image/position_embedding"
_LARGEST_GRID = 256  # patches along a side: a mistyped size must not fill the memory
_MODULES = ("Transformer", "Pooling", "Normalize")
"""Parts that a sentence encoder may have: a Dense after the pooling would be left out unseen."""
_POOLINGS: dict[str, Literal["cls", "mean"]] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@dataclass(frozen=True)
class Options:
    """What a user may say of a checkpoint that does not say it itself.

    Attributes:
      family: its kind; None to find out.
      tokenizer: a file or folder with the text tower's vocabulary; None to look beside the weights.
      activation: of CLIP's transformers, for open_clip checkpoints without their configuration.
      image_size: pixels to which the position embeddings are brought; None for the checkpoint's own.
    """

    family: str | None = None
    tokenizer: Path | None = None
    activation: Activation | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class Model:
    """A checkpoint as a model.

    Attributes:
      source: the checkpoint.
      config: of the model at the checkpoint's own image size: what the PyTorch model is compared at.
      imported: its tensors under our names, at that size.
      bundle: the model, its leaves `Lazy`, at the size that was asked for.
      assumed: what nobody said and was taken for granted.
      changed: parameters that are not the checkpoint's own: {path: how they were made}.
    """

    source: Source
    config: ModelConfig
    imported: Imported
    bundle: Bundle
    assumed: tuple[str, ...]
    changed: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What a passport says of the checkpoint, its files' hashes included."""
        source = self.source
        dropped = {source.spelt[key][1]: reason for key, reason in self.imported.dropped.items()} | source.aside
        return {
            "name": source.name,
            "family": source.family.name,
            "files": [
                {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)} for file in source.files
            ],
            "tensors": {
                "read": len(source.tensors) + len(source.aside),
                "mapped": len(self.imported.keys),
                "dropped": [{"key": key, "reason": reason} for key, reason in sorted(dropped.items())],
            },
            "dtypes": dict(Counter(str(source.tensors[key].dtype) for key in self.imported.keys)),
            "assumed": list(self.assumed),
        }


def import_model(name: str, options: Options = Options()) -> Model:
    """A checkpoint as a model.

    Raises:
      JclipError: it is missing, damaged, of no known family, or does not fit together; file and key are named.
    """
    source = open_source(name, options.family)
    family = source.family
    hints = Hints(source.config, options.activation, _pooling(source.folder))
    table = family.table(source.tensors)
    sizes = Sizes(table, {key: tensor.shape for key, tensor in source.tensors.items()}, _where(source), source.said_in)
    config = family.config(sizes, source.tensors.keys(), hints)
    imported = import_tensors(
        table, tensor_shapes(config), source.tensors, title=family.title, dropped=family.dropped, name_of=source.name_of
    )
    tensors, final, changed = _at_size(family, config, imported.tensors, options.image_size)
    params, stats = split_statistics(tensors)
    bundle = Bundle(
        config=final,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=_tokenizer(source, config, options.tokenizer),
        preprocessing=_preprocessing(source, final),
        context_length=_context_length(source, config),
        provenance={"converted_from": source.name},
    )
    return Model(source, config, imported, bundle, tuple(hints.assumed), changed)


def _where(source: Source) -> str:
    return str(source.folder or source.files[0])


def _at_size(
    family: Family, config: ModelConfig, tensors: Mapping[str, Lazy], size: int | None
) -> tuple[dict[str, Lazy], ModelConfig, dict[str, str]]:
    """The model at another image size, by the family's own interpolation of its position embeddings."""
    if size is None or (isinstance(config, DualEncoderConfig) and size == config.image.image_size):
        return dict(tensors), config, {}
    if not isinstance(config, DualEncoderConfig) or not isinstance(config.image, VitConfig):
        raise JclipError("--image-size is for models with a ViT: leave it away")
    grid, rest = divmod(size, config.image.patch_size)
    if rest or not 1 <= grid <= _LARGEST_GRID:
        raise JclipError(
            f"--image-size: image_size {size} is not a multiple of patch_size {config.image.patch_size}, or more than "
            f"{_LARGEST_GRID} times as large: give another"
        )
    image, old = replace(config.image, image_size=size), tensors[POSITIONS]

    def parts() -> Any:
        yield resized(old.read().astype(np.float32), grid, family.interpolation).astype(old.dtype)

    positions = Lazy((1 + grid * grid, image.width), old.dtype, parts)
    how = f"interpolated from {config.image.image_size} to {size} pixels as {family.interpolation} does"
    return {**tensors, POSITIONS: positions}, replace(config, image=image), {POSITIONS: how}


def _tokenizer(source: Source, config: ModelConfig, given: Path | None) -> Tokenizer:
    """The text tower's tokenizer: the one given, else the checkpoint's own, else its makers' package's."""
    family = source.family
    if given:
        place = given
    else:
        found = _beside(source) or _packaged(family)
        if found is None:
            package = f", or install {family.vocabulary[0].replace('_', '-')}" if family.vocabulary else ""
            raise JclipError(f"{_where(source)} comes without its vocabulary: give --tokenizer{package}")
        place = found
    tokenizer = load_tokenizer(place)
    if tokenizer.kind != family.tokenizer:
        raise JclipError(
            f"{place} is a {tokenizer.kind} vocabulary, but {family.title} reads {family.tokenizer}: give its own with "
            "--tokenizer"
        )
    if tokenizer.vocab_size > config.text.vocab_size:
        raise JclipError(
            f"{place} has {tokenizer.vocab_size} tokens, but the model has embeddings for {config.text.vocab_size}: "
            "it is another model's vocabulary, give its own with --tokenizer"
        )
    return tokenizer


def _beside(source: Source) -> Path | None:
    folder = source.folder
    if folder is None:
        return None
    names = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "merges.txt")
    return folder if any((folder / name).is_file() for name in names) else None


def _packaged(family: Family) -> Path | None:
    """The vocabulary in an installed package, which is found without importing it."""
    if family.vocabulary is None:
        return None
    package, name = family.vocabulary
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def _preprocessing(source: Source, config: ModelConfig) -> Preprocessing | None:
    if isinstance(config, TextEncoderConfig):
        return None
    default = Preprocessing(size=config.image.image_size, resize=source.family.resize)
    said = read_preprocessing(source.folder, default) if source.folder else default
    return replace(said, size=config.image.image_size)


def _context_length(source: Source, config: ModelConfig) -> int:
    text = config.text
    longest = text.context_length if isinstance(text, ClipTextConfig) else text.longest
    said = source.family.context_length
    sentences = source.folder / "sentence_bert_config.json" if source.folder else None
    if sentences and sentences.is_file():
        said = read_object(sentences).get("max_seq_length")
        if said is not None and not (isinstance(said, int) and said > 2):
            raise JclipError(f"{sentences}: max_seq_length is {said!r}, but must be a number of tokens: mend it")
    return min(said or longest, longest)


def _pooling(folder: Path | None) -> Literal["cls", "mean"]:
    """How a sentence encoder pools, from the files of sentence-transformers; [CLS] where there are none."""
    if folder and (folder / "modules.json").is_file():
        for module in read_json(folder / "modules.json"):
            kind = str(module.get("type") if isinstance(module, dict) else module)
            if kind.rpartition(".")[2] not in _MODULES:
                raise JclipError(f"{folder / 'modules.json'} has a module {shown(kind)}, which is not supported")
    file = folder / "1_Pooling" / "config.json" if folder else None
    if file is None or not file.is_file():
        return "cls"
    said = read_object(file)
    modes = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    if len(modes) == 1 and modes[0] in _POOLINGS:
        return _POOLINGS[modes[0]]
    raise JclipError(
        f"{file} pools by {', '.join(modes) or 'nothing'}: only {' or '.join(_POOLINGS)} is supported, convert another"
    )
