"""Weights out: a bundle as a folder for transformers, or as a checkpoint for cn_clip."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from jclip.bundle import Bundle, open_bundle
from jclip.conversion.engine import export_tensors
from jclip.conversion.families import family_named
from jclip.conversion.families.family import Family
from jclip.conversion.hf import hf_config
from jclip.conversion.hf.processor import Family as HfFamily
from jclip.conversion.hf.processor import check_hf_processor, write_hf_processor
from jclip.conversion.importing import packaged_vocabulary
from jclip.conversion.sizes import heads_for, vit_heads_for
from jclip.conversion.source import is_bundle
from jclip.errors import JclipError
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.io.files import check_free, whole_file, whole_folder
from jclip.io.tensors import Lazy, write_safetensors
from jclip.models.bert import BertConfig
from jclip.models.build import ModelConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.tokenizers.text import load_tokenizer

Target = Literal["hf", "cn-clip"]

_OTHER: dict[Target, Target] = {"hf": "cn-clip", "cn-clip": "hf"}
_HF_FAMILY: dict[str, HfFamily] = {"altclip": "altclip", "chinese_clip": "chinese-clip", "clip": "clip"}
_BIAS = "logit_bias"  # of the sigmoid loss


def export(bundle_folder: Path, destination: Path, to: Target) -> str:
    """Writes a bundle in others' form.

    For transformers the tensors are a stream. For cn_clip all are in memory at once, because torch.save takes them so:
    2.0 GB at the peak for ViT-L-14, whose checkpoint has 1.6 (benchmarks/RESULTS.md).

    Args:
      bundle_folder: a bundle, converted or trained.
      destination: "hf": a folder for `from_pretrained`; "cn-clip": a .pt file. It must not be there yet.
      to: which.

    Returns:
      What reads it: the name of the class, and what of the model it lacks.

    Raises:
      JclipError: no bundle, or a model that the others lack; the destination is taken, full or read-only.
    """
    check_free(destination)
    if not is_bundle(bundle_folder):
        raise JclipError(f"{bundle_folder} is no bundle, and --to writes nothing else: convert it without --to first")
    bundle = open_bundle(bundle_folder)
    config = bundle.config
    if not isinstance(config, DualEncoderConfig):
        raise JclipError(
            f"{bundle_folder} is a text encoder alone, and --to writes two towers: give it one with --image and --text"
        )
    refused = {target: _refusal(bundle, config, target) for target in (to, _OTHER[to])}
    if refused[to]:
        other = refused[_OTHER[to]]
        if other:
            raise JclipError(
                f"{bundle_folder}: {refused[to]}; nor can --to {_OTHER[to]} write it, for {other}: it stays a bundle, "
                "which jclip reads"
            )
        raise JclipError(f"{bundle_folder}: {refused[to]}: write this one with --to {_OTHER[to]}")
    reader = _to_hf(bundle, config, destination) if to == "hf" else _to_cn_clip(bundle, destination)
    if config.logit_bias_init is not None:
        reader += f" (without {_BIAS}, which it does not know: similarities, and a softmax over them, stay the same)"
    return reader


def _refusal(bundle: Bundle, config: DualEncoderConfig, to: Target) -> str | None:
    """Returns why a model cannot be written for a reader; None if it can."""
    try:
        if to == "hf":
            assert bundle.preprocessing is not None
            check_hf_processor(_HF_FAMILY[hf_config.model_type(config)], bundle.tokenizer, bundle.preprocessing)
        else:
            _check_cn_clip(config)
            _check_cn_clip_inputs(bundle)
    except JclipError as error:
        return str(error)
    return None


def _to_hf(bundle: Bundle, config: DualEncoderConfig, folder: Path) -> str:
    said = hf_config.dual(config)
    family = _HF_FAMILY[said["model_type"]]
    assert bundle.preprocessing is not None
    with whole_folder(folder, replace=False) as partial:
        write_safetensors(partial / "model.safetensors", _exported(bundle, family_named(family)), {"format": "pt"})
        (partial / "config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        write_hf_processor(partial, family, bundle.tokenizer, bundle.preprocessing, bundle.context_length)
    return f"transformers.{said['architectures'][0]}"


def _to_cn_clip(bundle: Bundle, file: Path) -> str:
    try:
        import torch
    except ImportError:
        raise JclipError("--to cn-clip needs torch: pip install 'jclip[convert]'") from None
    state: dict[str, Any] = {}
    for key, tensor in _exported(bundle, family_named("cn-clip")).items():
        state[f"module.{key}"] = _torch(tensor)
        if key.endswith(".running_var"):  # a counter that its batch norms want to see, and never use
            state[f"module.{key.removesuffix('running_var')}num_batches_tracked"] = torch.tensor(0)
    checkpoint = {"epoch": 0, "step": 0, "name": bundle.provenance.get("run", "jclip"), "state_dict": state}
    with whole_file(file) as partial, partial.open("wb") as stream:
        try:
            torch.save(checkpoint, stream)
        except RuntimeError as error:
            # A stream of ours says why it cannot be written to, and then torch wonders at where its archive ends.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    return "cn_clip: load_from_name, or --resume with --reset-optimizer"


def _check_cn_clip(config: DualEncoderConfig) -> None:
    """What a cn_clip checkpoint does not say must be as cn_clip takes it for granted, or it would be read wrongly."""
    text, image = config.text, config.image
    if not isinstance(text, BertConfig) or text.position_offset != "none" or config.head_width:
        raise JclipError("cn_clip has no model with this text tower")
    if (text.layer_norm_eps, text.heads) != (1e-12, heads_for(text.width)):
        raise JclipError(
            f"cn_clip's BERT has an epsilon of 1e-12 and heads of 64 channels, this one {text.layer_norm_eps:g} and "
            f"heads of {text.width // text.heads}"
        )
    if isinstance(image, VitConfig) and image != replace(
        image, activation="quick_gelu", mlp_ratio=4, heads=vit_heads_for(image.width)
    ):
        raise JclipError(
            "cn_clip's ViT has QuickGELU, perceptrons 4 times as wide and heads of 64 channels, this one not"
        )


def _check_cn_clip_inputs(bundle: Bundle) -> None:
    """Nor does it say how pictures and texts become its inputs: cn_clip has one way, and its own vocabulary."""
    theirs = packaged_vocabulary(family_named("cn-clip"))
    if theirs is None:
        raise JclipError("the vocabulary is held against cn_clip's own, which pip install 'jclip[convert]' brings")
    assert bundle.preprocessing is not None
    expected = Preprocessing(size=bundle.preprocessing.size, mean=CLIP_MEAN, std=CLIP_STD, resize="squash")
    if bundle.preprocessing != expected:
        other = ", ".join(
            f"{field.name} {getattr(bundle.preprocessing, field.name)}"
            for field in fields(expected)
            if getattr(bundle.preprocessing, field.name) != getattr(expected, field.name)
        )
        raise JclipError(f"cn_clip makes every picture square, with CLIP's mean and deviation; this model sees {other}")
    words, said = load_tokenizer(theirs).tokens, bundle.tokenizer
    # With embeddings for another number of tokens it is no model that cn_clip names, and whoever loads it knows that.
    same = bundle.config.text.vocab_size != len(words) or list(said.tokens) == list(words[: said.vocab_size])
    if said.kind != "wordpiece" or not same:
        raise JclipError("cn_clip reads texts with its own vocabulary and rules, and this model has others")


def _exported(bundle: Bundle, family: Family) -> dict[str, Lazy]:
    ours = {path: tensor for path, tensor in bundle.tensors().items() if path != _BIAS}
    return export_tensors(family.table(telling_keys(bundle.config)), ours)


def telling_keys(config: ModelConfig) -> tuple[str, ...]:
    """Keys of a checkpoint from which a family's table learns what it cannot know: how many blocks a ResNet has."""
    image = getattr(config, "image", None)
    if not isinstance(image, ResNetConfig):
        return ()
    return tuple(f"visual.layer{stage}.{blocks - 1}.conv1.weight" for stage, blocks in enumerate(image.layers, 1))


def _torch(tensor: Lazy) -> Any:
    import torch

    value = tensor.read()
    if value.dtype.name == "bfloat16":  # torch takes none of numpy's
        return torch.from_numpy(value.view("uint16")).view(torch.bfloat16)
    return torch.from_numpy(value)
