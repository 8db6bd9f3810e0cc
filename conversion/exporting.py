"""Exports a bundle for other libraries: a folder for transformers, or a checkpoint for cn_clip."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jclip.bundle import Bundle, is_bundle, open_bundle
from jclip.conversion.families import family_named, hf_family
from jclip.conversion.families.family import Family
from jclip.conversion.hf.config import hf_config
from jclip.conversion.hf.processor import check_hf_processor, write_hf_processor
from jclip.conversion.mapping import export_tensors
from jclip.conversion.towers import format_of
from jclip.conversion.vocabulary import packaged_vocabulary
from jclip.errors import JclipError
from jclip.extras import MissingExtra, reported_extras
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.io.files import check_free, whole_file, whole_folder
from jclip.io.safetensors import write_safetensors
from jclip.io.tensors import Lazy
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.tokenizers.text import load_tokenizer

Target = Literal["hf", "cn-clip"]

_OTHER: dict[Target, Target] = {"hf": "cn-clip", "cn-clip": "hf"}
_BIAS = "logit_bias"  # parameter of the sigmoid loss


def export(bundle_folder: Path, destination: Path, to: Target) -> str:
    """Writes a bundle in another library's format. Returns the name of the class or function that reads the result.

    A remark on what the other library cannot store may follow the name.

    The destination must not exist: for "hf" a folder for `from_pretrained`; for "cn-clip" a .pt file. For transformers
    the tensors are streamed. For cn_clip all tensors are in memory at once, because torch.save requires it: 2.0 GB at
    the peak for ViT-L-14, whose checkpoint has 1.6 GB (benchmarks/RESULTS.md).

    Raises JclipError if the folder is not a bundle, the library lacks such a model, or the destination cannot be
    written.
    """
    check_free(destination)
    if not is_bundle(bundle_folder):
        raise JclipError(f"{bundle_folder} is not a bundle, which --to needs: convert it without --to first")
    bundle = open_bundle(bundle_folder)
    config, preprocessing = bundle.config, bundle.preprocessing
    if not isinstance(config, DualEncoderConfig) or preprocessing is None:
        raise JclipError(f"{bundle_folder} has no image tower, which --to needs: compose it with --image and --text")
    refused = {target: _refusal(bundle, config, preprocessing, target) for target in (to, _OTHER[to])}
    if refused[to]:
        if refused[_OTHER[to]]:
            raise JclipError(
                f"{bundle_folder}: {refused[to]}; --to {_OTHER[to]} cannot write it either ({refused[_OTHER[to]]}): it "
                "stays a bundle, which jclip reads"
            )
        raise JclipError(f"{bundle_folder}: {refused[to]}: write this one with --to {_OTHER[to]}")
    reader = _to_hf(bundle, config, preprocessing, destination) if to == "hf" else _to_cn_clip(bundle, destination)
    if config.logit_bias_init is not None:
        reader += f" (without {_BIAS}, which it lacks: similarities and their softmax do not change)"
    return reader


def depth_keys(config: Any) -> tuple[str, ...]:
    """Returns keys from which a family's mapping table infers how many blocks the towers have."""
    image = getattr(config, "image", None)
    return format_of(image).depth_keys(image) if image is not None else ()


def _refusal(bundle: Bundle, config: DualEncoderConfig, preprocessing: Preprocessing, to: Target) -> str | None:
    """Returns the reason why a library cannot read a model; None if it can."""
    try:
        if to == "hf":
            check_hf_processor(hf_family(config)[1], bundle.tokenizer, preprocessing)
        else:
            _check_cn_clip(config)
            _check_cn_clip_inputs(bundle, preprocessing)
    except JclipError as error:
        return str(error)
    return None


def _to_hf(bundle: Bundle, config: DualEncoderConfig, preprocessing: Preprocessing, folder: Path) -> str:
    family, model = hf_family(config)
    with whole_folder(folder, replace=False) as partial:
        tensors = _exported(bundle, family)
        write_safetensors(partial / "model.safetensors", tensors, {"format": "pt"})
        (partial / "config.json").write_text(json.dumps(hf_config(model, config), indent=2) + "\n", encoding="utf-8")
        write_hf_processor(partial, model, bundle.tokenizer, preprocessing, bundle.context_length)
    return f"transformers.{model.name}Model"


def _to_cn_clip(bundle: Bundle, file: Path) -> str:
    with reported_extras():
        import torch
    state: dict[str, Any] = {}
    for key, tensor in _exported(bundle, family_named("cn-clip")).items():
        state[f"module.{key}"] = _torch(tensor)
        if key.endswith(".running_var"):  # cn_clip's batch norms expect a counter, which they never use
            state[f"module.{key.removesuffix('running_var')}num_batches_tracked"] = torch.tensor(0)
    checkpoint = {"epoch": 0, "step": 0, "name": bundle.provenance.get("run", "jclip"), "state_dict": state}
    with whole_file(file) as partial, partial.open("wb") as stream:
        try:
            torch.save(checkpoint, stream)
        except RuntimeError as error:
            # If a write fails, torch raises a RuntimeError about the archive; the disk's error is its context.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    return "cn_clip: load_from_name, or --resume with --reset-optimizer"


def _check_cn_clip(config: DualEncoderConfig) -> None:
    """Raises JclipError if cn_clip has no such towers, or if they differ in a setting that its code fixes."""
    for tower in (config.text, config.image):
        layout = format_of(tower)
        if layout.cn_clip is None or config.head_width:
            raise JclipError(f"cn_clip has no model with {layout.title}{' and a head' if config.head_width else ''}")
        if needs := layout.cn_clip_needs(tower):
            raise JclipError(needs)


def _check_cn_clip_inputs(bundle: Bundle, preprocessing: Preprocessing) -> None:
    """Raises JclipError if cn_clip would preprocess images or tokenize text differently."""
    theirs = packaged_vocabulary(family_named("cn-clip"))
    if theirs is None:
        raise MissingExtra("cn_clip")
    expected = Preprocessing(size=preprocessing.size, mean=CLIP_MEAN, std=CLIP_STD, resize="squash")
    values = {field.name: getattr(preprocessing, field.name) for field in fields(expected)}
    other = [f"{name} {value}" for name, value in values.items() if value != getattr(expected, name)]
    if other:
        raise JclipError(f"cn_clip squashes images and uses CLIP's mean and std, this model has {', '.join(other)}")
    words, said = load_tokenizer(theirs).tokens, bundle.tokenizer
    # A model of another vocabulary size cannot use cn_clip's vocabulary, so its user must supply one.
    same = bundle.config.text.vocab_size != len(words) or list(said.tokens) == list(words[: said.vocab_size])
    if said.kind != "wordpiece" or not same:
        raise JclipError("cn_clip tokenizes text with its own vocabulary and rules, and this model has others")


def _exported(bundle: Bundle, family: Family) -> dict[str, Lazy]:
    ours = {path: tensor for path, tensor in bundle.tensors().items() if path != _BIAS}
    return export_tensors(family.table(depth_keys(bundle.config)), ours)


def _torch(tensor: Lazy) -> Any:
    import torch

    value = tensor.read()
    if value.dtype.name == "bfloat16":  # torch.from_numpy does not accept it
        return torch.from_numpy(value.view("uint16")).view(torch.bfloat16)
    return torch.from_numpy(value)
