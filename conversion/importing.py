"""From a checkpoint to a model: detected, mapped and checked, but not read yet."""

import importlib.util
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jclip import rules
from jclip.bundle import Bundle, longest_text, split_statistics, tensor_shapes
from jclip.config import from_json
from jclip.conversion.engine import Imported, import_tensors
from jclip.conversion.families.family import Family, Hints
from jclip.conversion.files import fingerprints
from jclip.conversion.hf.processor import preprocessing_file, read_preprocessing
from jclip.conversion.positions import resized
from jclip.conversion.readings import summary
from jclip.conversion.sizes import Sizes
from jclip.conversion.source import Source, open_source
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.io.json_files import read_json, read_object
from jclip.io.tensors import Lazy, shown
from jclip.models.build import ModelConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.transformer import Activation
from jclip.models.vit import VitConfig
from jclip.ranges import RangeError
from jclip.tokenizers.text import Tokenizer, load_tokenizer, vocabulary_file
from jclip.tokenizers.vocabulary import TokenizerKind

POSITIONS = "image/position_embedding"
# Of sentence-transformers.
_LENGTH_FILE, _PARTS_FILE, _POOLING_FILE = "sentence_bert_config.json", "modules.json", "1_Pooling/config.json"
_BESIDE_VOCABULARY: dict[TokenizerKind, str] = {
    "wordpiece": "tokenizer_config.json",
    "bert": "tokenizer_config.json",
    "clip_bpe": "vocab.json",
}
"""What has a say in a tokenizer where it is there."""
_KNOWN_WIDTHS = (768, 1024)  # of BERT, RoBERTa-wwm, RBT3 and XLM-R, base and large
_LARGEST_SCALE = 80  # published ones are the logarithms of 100 or less
_FEWEST = 0.9  # tokens for each row of embeddings: some are padded, but to a multiple of 128 at the most
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
      key: the entry of a nested dict in which the model is, "ema"; None to find out.
      prefix: of the model's keys, "model.student."; None to find out.
    """

    family: str | None = None
    tokenizer: Path | str | None = None
    activation: Activation | None = None
    image_size: int | None = None
    key: str | None = None
    prefix: str | None = None

    def record(self) -> dict[str, Any]:
        """What was said, JSON-ready. The tokenizer's path is made absolute, to be found again from elsewhere."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.tokenizer is not None:
            said["tokenizer"] = str(Path(self.tokenizer).absolute())
        return {name: value for name, value in said.items() if value is not None}

    @classmethod
    def of(cls, record: Any, where: str) -> "Options":
        """What `record` gave.

        Raises:
          JclipError: it is none of its kind; `where` and the field are named.
        """
        return from_json(cls, record, where)


@dataclass(frozen=True)
class Model:
    """A checkpoint as a model.

    Attributes:
      source: the checkpoint.
      options: what the user said of it.
      original: its configuration at the checkpoint's own image size: what the PyTorch model is compared at.
      imported: its tensors under our names, at that size.
      config: at the size that was asked for.
      sized: the tensors at that size.
      tokenizer: None where the text tower is not wanted.
      preprocessing: of pictures; None for a text encoder alone.
      context_length: tokens that the text tower was trained with.
      read: {name in the passport: file} of all that the above was made of.
      assumed: what nobody said and was taken for granted.
      changed: parameters that are not the checkpoint's own: {path: how they were made}.
    """

    source: Source
    options: Options
    original: ModelConfig
    imported: Imported
    config: ModelConfig
    sized: dict[str, Lazy]
    tokenizer: Tokenizer | None
    preprocessing: Preprocessing | None
    context_length: int
    read: dict[str, Path]
    assumed: tuple[str, ...]
    changed: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Lazy]:
        """{path: tensor} at the size that was asked for, statistics under "batch_stats/": as of a bundle."""
        return self.sized

    def bundle(self) -> Bundle:
        """The model with its tokenizer, which it must have."""
        assert self.tokenizer is not None
        params, stats = split_statistics(self.sized)
        return Bundle(
            config=self.config,
            params=rules.tree_from_paths(params),
            stats=rules.tree_from_paths(stats),
            tokenizer=self.tokenizer,
            preprocessing=self.preprocessing,
            context_length=self.context_length,
            provenance={"converted_from": self.source.name},
        )

    def facts(self) -> dict[str, Any]:
        """What a passport says of the checkpoint, its files' hashes included."""
        source = self.source
        dropped = {source.spelt[key][1]: reason for key, reason in self.imported.dropped.items()} | source.aside
        return {
            "name": source.name,
            "commit": source.commit,
            "family": source.family.name,
            "prefix": source.prefix,
            "left_out": summary(source.aside),
            "ignored": list(source.ignored),
            "options": self.options.record(),
            "files": fingerprints(self.read),
            "tensors": {
                "read": len(source.tensors) + len(source.aside),
                "mapped": len(self.imported.keys),
                "dropped": [{"key": key, "reason": reason} for key, reason in sorted(dropped.items())],
            },
            "dtypes": dict(Counter(str(source.tensors[key].dtype) for key in self.imported.keys)),
            "assumed": list(self.assumed),
        }


def import_model(name: str, options: Options = Options(), *, text: bool = True) -> Model:
    """A checkpoint as a model.

    Args:
      name: a file, a folder, or hf://ORG/NAME, with @REVISION or without.
      options: what it does not say itself.
      text: whether its text tower is to be used: if not, its vocabulary is not asked for.

    Raises:
      JclipError: it is missing, damaged, of no known family, or does not fit together; file and key are named. Or an
        option has no use for it.
    """
    source = open_source(name, options.family, key=options.key, prefix=options.prefix)
    family = source.family
    hints = Hints(source.config, options.activation, _pooling(source.folder), said_in=source.said_in)
    table = family.table(source.tensors)
    sizes = Sizes(table, {key: tensor.shape for key, tensor in source.tensors.items()}, _where(source), source.said_in)
    try:
        config = family.config(sizes, source.tensors.keys(), hints)
    except RangeError as error:
        raise JclipError(f"{source.said_in}: {error}") from None
    if family.unsaid and not source.config:
        _check_guessed(config, source)
        hints.assumed.append(family.unsaid)
        if isinstance(config, TextEncoderConfig) and hints.pooling is None:
            hints.assumed.append("without a 1_Pooling: a text is its first token's state")
    _check_activation(config, options.activation, source.said_in)
    imported = import_tensors(
        table, tensor_shapes(config), source.tensors, title=family.title, dropped=family.dropped, name_of=source.name_of
    )
    _check_scale(imported, source)
    sized, final, changed = _at_size(family, config, imported.tensors, options.image_size)
    read = _files_of(source)
    tokenizer = None
    if text:
        place = _vocabulary(source, options.tokenizer)
        tokenizer = _tokenizer(source, config, place)
        read |= _tokenizer_files(place, tokenizer.kind)
    return Model(
        source=source,
        options=options,
        original=config,
        imported=imported,
        config=final,
        sized=sized,
        tokenizer=tokenizer,
        preprocessing=_preprocessing(source, final, options.image_size),
        context_length=_context_length(source, config),
        read=read,
        assumed=(*([source.note] if source.note else []), *hints.assumed),
        changed=changed,
    )


def _where(source: Source) -> str:
    return str(source.folder or source.files[0])


def _files_of(source: Source) -> dict[str, Path]:
    """All that was read of a checkpoint but its vocabulary."""
    read = {file.name: file for file in (*source.files, *source.beside)}
    folder = source.folder
    if folder is None:
        return read
    names = (_LENGTH_FILE, _PARTS_FILE, _POOLING_FILE)
    read |= {name: folder / name for name in names if (folder / name).is_file()}
    pictures = preprocessing_file(folder)
    return read | ({pictures.name: pictures} if pictures else {})


def _check_activation(config: ModelConfig, said: Activation | None, where: str) -> None:
    towers = (config.text,) if isinstance(config, TextEncoderConfig) else (config.image, config.text)
    if said is not None and said not in [getattr(tower, "activation", None) for tower in towers]:
        raise JclipError(f"--activation {said} has no use for {where}, no tower takes it: leave it away")


def _at_size(
    family: Family, config: ModelConfig, tensors: Mapping[str, Lazy], size: int | None
) -> tuple[dict[str, Lazy], ModelConfig, dict[str, str]]:
    """The model at another image size, by the family's own interpolation of its position embeddings."""
    if size is not None and size < 1:
        raise JclipError(f"--image-size is {size}, but must be 1 or more: give another")
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


def _vocabulary(source: Source, given: Path | str | None) -> Path:
    """Where the text tower's vocabulary is: as given, else beside the weights, else in its makers' package."""
    if given is not None:
        if not Path(given).exists():
            raise JclipError(f"there is no tokenizer at {given}: name where it is with --tokenizer")
        return Path(given)
    family = source.family
    found = _beside(source) or packaged_vocabulary(family)
    if found is None:
        package = f", or install {family.vocabulary[0].replace('_', '-')}" if family.vocabulary else ""
        raise JclipError(f"{_where(source)} comes without its vocabulary: give --tokenizer{package}")
    return found


def _tokenizer_files(place: Path, kind: TokenizerKind) -> dict[str, Path]:
    """What was read of a tokenizer, by the names of the files: where they lie is of no matter."""
    file = vocabulary_file(place)
    beside = [file.with_name("jclip_tokenizer.json")] if place.is_dir() else []
    if kind in _BESIDE_VOCABULARY and not (kind == "clip_bpe" and file.suffix == ".json"):
        beside.append(file.with_name(_BESIDE_VOCABULARY[kind]))
    return {each.name: each for each in (file, *beside) if each.is_file()}


def _tokenizer(source: Source, config: ModelConfig, place: Path) -> Tokenizer:
    """The text tower's tokenizer."""
    family = source.family
    tokenizer = load_tokenizer(place, family.tokenizer)
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
    if tokenizer.vocab_size < _FEWEST * config.text.vocab_size:
        raise JclipError(
            f"{place} has {tokenizer.vocab_size} tokens, but the model has embeddings for {config.text.vocab_size}: "
            "it is cut off or another model's, fetch it again, or give its own with --tokenizer"
        )
    return tokenizer


def _beside(source: Source) -> Path | None:
    folder = source.folder
    if folder is None:
        return None
    names = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "merges.txt")
    return folder if any((folder / name).is_file() for name in names) else None


def packaged_vocabulary(family: Family) -> Path | None:
    """The vocabulary in an installed package, which is found without importing it."""
    if family.vocabulary is None:
        return None
    package, name = family.vocabulary
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def _preprocessing(source: Source, config: ModelConfig, asked: int | None) -> Preprocessing | None:
    if isinstance(config, TextEncoderConfig):
        return None
    default = Preprocessing(size=config.image.image_size, resize=source.family.resize)
    said = read_preprocessing(source.folder, default) if source.folder else default
    if source.folder and asked is None and said.size != config.image.image_size:
        raise JclipError(
            f"{preprocessing_file(source.folder)}: pictures become {said.size} pixels wide, but the image tower takes "
            f"{config.image.image_size}: mend it, or give the size that you mean with --image-size"
        )
    return replace(said, size=config.image.image_size)


def _context_length(source: Source, config: ModelConfig) -> int:
    longest = longest_text(config)
    said = source.family.context_length
    sentences = source.folder / _LENGTH_FILE if source.folder else None
    if sentences and sentences.is_file():
        said = read_object(sentences).get("max_seq_length")
        if said is not None and not (isinstance(said, int) and said > 2):
            raise JclipError(f"{sentences}: max_seq_length is {said!r}, but must be a number of tokens: mend it")
    return min(said or longest, longest)


def _check_scale(imported: Imported, source: Source) -> None:
    """The embeddings, which are compared, do not show it, and every similarity is multiplied by its exponential."""
    scale = imported.tensors.get("logit_scale")
    if scale is not None and not abs(float(value := scale.read())) <= _LARGEST_SCALE:
        raise JclipError(
            f"{source.name_of('logit_scale')} is {float(value):g}, and its exponential is no number: fetch it again, "
            "or take an earlier checkpoint"
        )


def _check_guessed(config: ModelConfig, source: Source) -> None:
    """A sentence encoder's heads are as often of 32 channels as of 64, and a wrong guess shows in no tensor."""
    if isinstance(config, TextEncoderConfig) and config.text.width not in _KNOWN_WIDTHS:
        raise JclipError(
            f"{_where(source)} comes without a config.json, and states {config.text.width} wide may have any number of "
            "heads: put its own beside it, and name the folder"
        )


def _pooling(folder: Path | None) -> Literal["cls", "mean"] | None:
    """How a sentence encoder pools, from the files of sentence-transformers; None where there are none."""
    parts, file = (folder / _PARTS_FILE, folder / _POOLING_FILE) if folder else (None, None)
    if parts and parts.is_file():
        for module in read_json(parts):
            kind = str(module.get("type") if isinstance(module, dict) else module)
            if kind.rpartition(".")[2] not in _MODULES:
                raise JclipError(f"{parts} has a module {shown(kind)}, which is not supported")
    if file is None or not file.is_file():
        return None
    said = read_object(file)
    modes = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    if len(modes) == 1 and modes[0] in _POOLINGS:
        return _POOLINGS[modes[0]]
    raise JclipError(
        f"{file} pools by {', '.join(modes) or 'nothing'}: only {' or '.join(_POOLINGS)} is supported, convert another"
    )
