"""Imports a checkpoint as a model: finds, maps and checks its tensors, which are read later."""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jclip import rules
from jclip.bundle import Bundle, split_statistics, tensor_shapes
from jclip.conversion.candidates import count_by_top
from jclip.conversion.checkpoint import Checkpoint, open_checkpoint
from jclip.conversion.checkpoint_files import fingerprints
from jclip.conversion.families.family import Hints
from jclip.conversion.hf.processor import preprocessing_file, read_preprocessing
from jclip.conversion.hf.sentence_encoder import read_longest, read_pooling, sentence_files
from jclip.conversion.mapping import MappedTensors, import_tensors
from jclip.conversion.towers.resizing import at_image_size
from jclip.conversion.towers.rows import MappingTable
from jclip.conversion.towers.sizes import Sizes
from jclip.conversion.vocabulary import find_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.io.tensors import Lazy
from jclip.models.build import ModelConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.transformer import Activation
from jclip.ranges import RangeError
from jclip.tokenizers.text import Tokenizer

_LARGEST_SCALE = 80  # of |logit_scale|, a logarithm; float32 overflows at exp(89), and published scales are <= log(100)


@dataclass(frozen=True)
class CheckpointOptions:
    """Facts that a user can give about a checkpoint, each named like its option of `jclip convert`.

    Attributes:
      family: kind of checkpoint; None to detect it.
      tokenizer: file or folder with the text tower's vocabulary; None to look beside the weights.
      activation: activation of CLIP's transformers, for open_clip checkpoints without their configuration.
      image_size: size in pixels to which the position embeddings are interpolated; None for the checkpoint's own.
      key: entry of a nested dict that holds the model, such as "ema"; None to search everywhere.
      prefix: prefix of the model's keys, such as "model.student."; None to detect it.
    """

    family: str | None = None
    tokenizer: Path | str | None = None
    activation: Activation | None = None
    image_size: int | None = None
    key: str | None = None
    prefix: str | None = None

    def record(self) -> dict[str, Any]:
        """Returns the given options, JSON-ready. The tokenizer's path becomes absolute."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.tokenizer is not None:
            said["tokenizer"] = str(Path(self.tokenizer).absolute())
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class ImportedModel:
    """Checkpoint as a model, whose tensors are read on demand.

    Attributes:
      original: configuration at the checkpoint's own image size, at which it is compared with PyTorch.
      mapped: tensors by our paths, at the checkpoint's own image size.
      config: configuration at the image size that the user asked for.
      sized: tensors by our paths, at the image size that the user asked for.
      tokenizer: tokenizer; None if the text tower is not wanted.
      preprocessing: preprocessing of images; None for a text encoder.
      context_length: maximum number of tokens of a text in training.
      read: all files that were read, by their name in the passport.
      assumed: assumptions about facts that neither the files nor the user give, for the passport.
      changed: origin of each parameter that differs from the checkpoint, by path.
    """

    source: Checkpoint
    options: CheckpointOptions
    original: ModelConfig
    mapped: MappedTensors
    config: ModelConfig
    sized: dict[str, Lazy]
    tokenizer: Tokenizer | None
    preprocessing: Preprocessing | None
    context_length: int
    read: dict[str, Path]
    assumed: tuple[str, ...]
    changed: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Lazy]:
        """Returns the tensors as `Bundle.tensors` does, running statistics under "batch_stats/"."""
        return self.sized

    def bundle(self) -> Bundle:
        """Returns the model as a bundle. Raises JclipError if it was imported without its tokenizer."""
        if self.tokenizer is None:
            raise JclipError(f"{self.source.name} was imported without its text tower: import it with text=True")
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
        """Returns the passport's entry for the checkpoint, with the hashes of its files."""
        source = self.source
        dropped = {source.spelt[key][1]: reason for key, reason in self.mapped.dropped.items()} | source.left_out
        return {
            "name": source.name,
            "commit": source.commit,
            "family": source.family.name,
            "prefix": source.prefix,
            "left_out": count_by_top(source.left_out),
            "ignored": list(source.ignored),
            "options": self.options.record(),
            "files": fingerprints(self.read),
            "tensors": {
                "read": len(source.tensors) + len(source.left_out),
                "mapped": len(self.mapped.keys),
                "dropped": [{"key": key, "reason": reason} for key, reason in sorted(dropped.items())],
            },
            "dtypes": dict(Counter(str(source.tensors[key].dtype) for key in self.mapped.keys)),
            "assumed": list(self.assumed),
        }


def import_model(name: str, options: CheckpointOptions = CheckpointOptions(), *, text: bool = True) -> ImportedModel:
    """Imports a checkpoint as a model.

    Raises JclipError if the checkpoint is missing, damaged, inconsistent or of no known family, or an option is wrong.

    Args:
      name: a file, a folder, or hf://ORG/NAME with an optional @REVISION.
      text: False if the text tower is not needed; then no vocabulary is required.
    """
    source = open_checkpoint(name, options.family, key=options.key, prefix=options.prefix)
    table = source.family.table(source.tensors)
    original, assumed = _configuration(source, table, options)
    mapped = _mapped(source, table, original)
    config, sized, changed = at_image_size(original, mapped.tensors, options.image_size, source.family.interpolation)
    read, tokenizer = _files_of(source), None
    if text:
        tokenizer, files = find_tokenizer(source, config.text.vocab_size, options.tokenizer)
        read |= files
    return ImportedModel(
        source=source,
        options=options,
        original=original,
        mapped=mapped,
        config=config,
        sized=sized,
        tokenizer=tokenizer,
        preprocessing=_preprocessing(source, config, options.image_size),
        context_length=_context_length(source, original),
        read=read,
        assumed=(*([source.note] if source.note else []), *assumed),
        changed=changed,
    )


def _configuration(
    source: Checkpoint, table: MappingTable, options: CheckpointOptions
) -> tuple[ModelConfig, list[str]]:
    """Returns the configuration from the shapes, the configuration file and the user's options, and the assumptions."""
    pooling = read_pooling(source.folder) if source.folder else None
    hints = Hints(source.config, options.activation, pooling, config_name=source.config_name)
    sizes = Sizes(
        table, {key: tensor.shape for key, tensor in source.tensors.items()}, source.where, source.config_name
    )
    try:
        config = source.family.config(sizes, source.tensors.keys(), hints)
    except RangeError as error:
        raise JclipError(f"{source.config_name}: {error}") from None
    if source.family.unsaid and not source.config:
        hints.assumed.append(source.family.unsaid)
    towers = (getattr(config, "image", None), config.text)
    applied = [getattr(each, "activation", None) for each in towers]
    if options.activation is not None and options.activation not in applied:
        raise JclipError(f"--activation {options.activation} does not apply to {source.config_name}: omit it")
    return config, hints.assumed


def _mapped(source: Checkpoint, table: MappingTable, config: ModelConfig) -> MappedTensors:
    """Maps the tensors, and checks the logit scale, which a comparison of embeddings does not cover."""
    family = source.family
    wanted = tensor_shapes(config)
    mapped = import_tensors(table, wanted, source.tensors, family.dropped, source.name_of, family.title)
    scale = mapped.tensors.get("logit_scale")
    if scale is not None and not abs(float(value := scale.read())) <= _LARGEST_SCALE:
        raise JclipError(
            f"{source.name_of('logit_scale')} is {float(value):g}, but must be between -{_LARGEST_SCALE} and "
            f"{_LARGEST_SCALE}: fetch it again, or use an earlier checkpoint"
        )
    return mapped


def _files_of(source: Checkpoint) -> dict[str, Path]:
    """Returns all files that are read except the vocabulary, by their name in the passport."""
    read = {file.name: file for file in (*source.files, *source.other_files)}
    if source.folder is None:
        return read
    pictures = preprocessing_file(source.folder)
    return read | sentence_files(source.folder) | ({pictures.name: pictures} if pictures else {})


def _preprocessing(source: Checkpoint, config: ModelConfig, asked: int | None) -> Preprocessing | None:
    if isinstance(config, TextEncoderConfig):
        return None
    default = Preprocessing(size=config.image.image_size, resize=source.family.resize)
    said = read_preprocessing(source.folder, default) if source.folder else default
    if source.folder and asked is None and said.size != config.image.image_size:
        raise JclipError(
            f"{preprocessing_file(source.folder)}: images have {said.size} pixels, but the image tower takes "
            f"{config.image.image_size}: correct it, or choose a size with --image-size"
        )
    return replace(said, size=config.image.image_size)


def _context_length(source: Checkpoint, config: ModelConfig) -> int:
    said = read_longest(source.folder) if source.folder else None
    longest: int = config.text.longest
    return min(said or source.family.context_length or longest, longest)
