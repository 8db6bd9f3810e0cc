"""CLIP in OpenAI's layout: OpenAI's TorchScript archives, and open_clip's checkpoints."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from jclip.conversion.families.family import COUNTERS, Family, Hints, Shapes
from jclip.conversion.parity.references import open_clip
from jclip.conversion.towers.clip_text import clip_text_config, openai_clip_text
from jclip.conversion.towers.resnet import openai_resnet, resnet_blocks, resnet_config
from jclip.conversion.towers.rows import MappingRow, MappingTable
from jclip.conversion.towers.sizes import HEAD_WIDTH, Sizes, agree, heads_of
from jclip.conversion.towers.vit import openai_vit, vit_config
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.transformer import Activation

_UNDERSTOOD = {
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "heads"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
"""Fields of open_clip's configurations that jclip reads."""
_NEUTRAL: tuple[Any, ...] = (None, False, 0, 0.0, {}, "tok", "learnable", "argmax")
"""Accepted values of all other fields: with these the architecture is OpenAI's."""
_TEXT_HEADS = 8  # open_clip's default


def _table(keys: Collection[str]) -> MappingTable:
    blocks = resnet_blocks(keys)
    image = openai_resnet(blocks) if blocks else openai_vit()
    return (*image, *openai_clip_text(), MappingRow("logit_scale", "logit_scale"))


def _openai_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    return _config(sizes, keys, hints.fixed_activation("quick_gelu", sizes.where), {}, {})  # everywhere


def open_clip_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """Returns the configuration of one of open_clip's models.

    Raises JclipError if the activation is unknown, or the configuration has a feature that jclip's towers lack.
    """
    said = hints.part("model_cfg") or hints.config
    parts = {name: replace(hints, config=said).part(name) for name in _UNDERSTOOD}
    for name, part in parts.items():
        for field, value in part.items():
            if field not in _UNDERSTOOD[name] and value not in _NEUTRAL:
                found = f"{name}.{field} is {value!r}"
                raise JclipError(f"{sizes.config_name}: {found}, which jclip does not support: convert another model")
    vision, text = parts["vision_cfg"], parts["text_cfg"]
    config = _config(
        sizes,
        keys,
        _activation(sizes, said, hints),
        {"num_attention_heads": _image_heads(sizes, keys, vision)} if vision else {},
        {"num_attention_heads": _text_heads(sizes, text)} if text else {},
    )
    agree(said, {"embed_dim": config.embed_dim}, f"{sizes.config_name}: ")
    for name, tower in (("vision_cfg", config.image), ("text_cfg", config.text)):
        known = {field: getattr(tower, field) for field in _UNDERSTOOD[name] - {"heads"} if hasattr(tower, field)}
        fields = {field: list(value) if isinstance(value, tuple) else value for field, value in known.items()}
        agree(parts[name], fields, f"{sizes.config_name}: {name}.")
    return config


def _activation(sizes: Sizes, said: Mapping[str, Any], hints: Hints) -> Activation:
    if said.get("vision_cfg"):
        return hints.fixed_activation("quick_gelu" if said.get("quick_gelu") else "gelu", sizes.config_name)
    if hints.activation is None:
        raise JclipError(
            f"{sizes.where} does not say which activation it was trained with: put open_clip_config.json beside it and "
            "name the folder, or give --activation: quick_gelu (OpenAI's weights) or gelu (most of LAION's)"
        )
    return hints.activation


def _image_heads(sizes: Sizes, keys: Collection[str], vision: Mapping[str, Any]) -> int:
    each, resnet = vision.get("head_width", HEAD_WIDTH), bool(resnet_blocks(keys))
    width = HEAD_WIDTH if resnet else sizes.shape("image/class_embedding", 1)[0]
    whole = isinstance(each, int) and not isinstance(each, bool) and each > 0
    if not whole or width % each or (resnet and each != HEAD_WIDTH):
        what = f"but must be {HEAD_WIDTH} in a ResNet" if resnet else f"which does not divide a width of {width}"
        raise JclipError(
            f"{sizes.config_name}: vision_cfg.head_width is {each!r}, {what}: correct it, or fetch it again"
        )
    return width // each


def _text_heads(sizes: Sizes, text: Mapping[str, Any]) -> int:
    width = sizes.shape("text/token_embedding", 2)[1]
    return heads_of(text, "heads", width, _TEXT_HEADS, f"{sizes.config_name}: text_cfg.")


def _config(
    sizes: Sizes, keys: Collection[str], activation: Activation, image: Mapping[str, Any], text: Mapping[str, Any]
) -> DualEncoderConfig:
    blocks = resnet_blocks(keys)
    return DualEncoderConfig(
        image=resnet_config(sizes, blocks) if blocks else vit_config(sizes, image, activation),
        text=clip_text_config(sizes, text, activation),
        embed_dim=sizes.shape("text/projection/kernel", 2)[1],
    )


def _is_archive(shapes: Shapes, said: Mapping[str, Any], torchscript: bool) -> bool:
    return torchscript or "input_resolution" in shapes  # the archive itself, or a state dict with its buffers


def _is_beside_open_clips(shapes: Shapes, said: Mapping[str, Any], torchscript: bool) -> bool:
    return not _is_archive(shapes, said, torchscript) and bool({"vision_cfg", "model_cfg"} & said.keys())


_DROPPED = (
    COUNTERS,
    (r"input_resolution|context_length|vocab_size", "sizes, which the shapes of the tensors tell"),
    (r"(.*\.)?attn_mask", "the causal mask as a buffer"),
)
OPENAI_CLIP = Family(
    name="openai-clip",
    title="CLIP (OpenAI's archives)",
    signature=("visual.conv1.weight", "token_embedding.weight"),
    table=_table,
    config=_openai_config,
    reference=open_clip,
    dropped=_DROPPED,
    tokenizer="clip_bpe",
    vocabulary=("open_clip", "bpe_simple_vocab_16e6.txt.gz"),
    context_length=None,
    interpolation="open_clip",
    accepts=_is_archive,
    contradiction=lambda *files: "open_clip's configuration is beside it" if _is_beside_open_clips(*files) else "",
)
OPEN_CLIP = replace(
    OPENAI_CLIP,
    name="open-clip",
    title="CLIP (open_clip)",
    config=open_clip_config,
    accepts=lambda *files: not _is_archive(*files),
    contradiction=lambda *files: "it has the buffers of OpenAI's archives" if _is_archive(*files) else "",
)
