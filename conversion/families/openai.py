"""CLIP in OpenAI's layout: OpenAI's TorchScript archives, and open_clip's checkpoints."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from jclip.conversion.families.family import COUNTERS, Family, Hints
from jclip.conversion.rows import Row, Table
from jclip.conversion.sizes import (
    HEAD_WIDTH,
    Sizes,
    agree,
    clip_text_config,
    count,
    heads_that_divide,
    resnet_config,
    vit_config,
)
from jclip.conversion.towers import openai_resnet, openai_text, openai_vit
from jclip.errors import JclipError
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.transformer import Activation
from jclip.models.vit import VitConfig

# Of open_clip's model configurations: what is understood, and values of further fields that change nothing.
_UNDERSTOOD = {
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "heads"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
_HEADS = 8  # of a text tower, where a text_cfg does not say
_NEUTRAL: tuple[Any, ...] = (None, False, 0, 0.0, {}, "tok", "learnable", "argmax")


def table(keys: Collection[str]) -> Table:
    """All rows."""
    blocks = resnet_blocks(keys)
    image = openai_resnet(blocks) if blocks else openai_vit()
    return (*image, *openai_text(), Row("logit_scale", "logit_scale"))


def openai_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """OpenAI's models have QuickGELU everywhere."""
    return _config(sizes, keys, hints.activation_said("quick_gelu", sizes.where), {}, {})


def open_clip_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """open_clip's models.

    Raises:
      JclipError: nothing says which activation, or the configuration has parts that our towers lack.
    """
    said = hints.part("model_cfg") or hints.config
    if not said.get("vision_cfg") and hints.activation is None:
        raise JclipError(
            f"{sizes.where} does not say which activation it was trained with: put open_clip_config.json beside it and "
            "name the folder, or give --activation: quick_gelu (OpenAI's weights) or gelu (most of LAION's)"
        )
    parts = {}
    for name, understood in _UNDERSTOOD.items():
        parts[name] = replace(hints, config=said).part(name)
        for field, value in parts[name].items():
            if field not in understood and value not in _NEUTRAL:
                raise JclipError(
                    f"{sizes.said_in}: {name}.{field} is {value!r}, which is not supported: convert another model"
                )
    told: Activation = "quick_gelu" if said.get("quick_gelu") else "gelu"
    activation = hints.activation_said(told if said.get("vision_cfg") else None, sizes.said_in)
    vision, text = parts["vision_cfg"], parts["text_cfg"]
    image = {"num_attention_heads": _image_heads(sizes, keys, vision)} if vision else {}
    words = {}
    if text:
        width = sizes.shape("text/token_embedding", 2)[1]
        heads = heads_that_divide(width, text.get("heads", _HEADS), f"{sizes.said_in}: text_cfg.heads")
        words = {"num_attention_heads": heads}
    config = _config(sizes, keys, activation, image, words)
    agree(said, {"embed_dim": config.embed_dim}, f"{sizes.said_in}: ")
    agree(vision, _sizes_of(config.image), f"{sizes.said_in}: vision_cfg.")
    assert isinstance(config.text, ClipTextConfig)
    names = ("context_length", "vocab_size", "width", "layers")
    agree(text, {name: getattr(config.text, name) for name in names}, f"{sizes.said_in}: text_cfg.")
    return config


def _image_heads(sizes: Sizes, keys: Collection[str], vision: Mapping[str, Any]) -> int:
    """Heads of an image tower in open_clip's words."""
    each, resnet = vision.get("head_width", HEAD_WIDTH), bool(resnet_blocks(keys))
    width = HEAD_WIDTH if resnet else sizes.shape("image/class_embedding", 1)[0]
    if (
        not isinstance(each, int)
        or isinstance(each, bool)
        or each < 1
        or width % each
        or (resnet and each != HEAD_WIDTH)
    ):
        what = f"but must be {HEAD_WIDTH} in a ResNet" if resnet else f"which does not divide a width of {width}"
        raise JclipError(f"{sizes.said_in}: vision_cfg.head_width is {each!r}, {what}: mend it, or fetch it again")
    return width // each


def _sizes_of(image: VitConfig | ResNetConfig) -> dict[str, Any]:
    """The fields of a vision_cfg that the tensors tell."""
    if isinstance(image, ResNetConfig):
        return {"image_size": image.image_size, "width": image.width, "layers": list(image.layers)}
    names = ("image_size", "width", "layers", "patch_size", "mlp_ratio")
    return {name: getattr(image, name) for name in names}


def resnet_blocks(keys: Collection[str]) -> tuple[int, ...]:
    """Blocks in each stage of a ResNet in OpenAI's layout; empty when the image tower is none."""
    blocks = tuple(count(keys, rf"visual\.layer{stage}\.([0-9]{{1,2}})\.conv1\.weight") for stage in (1, 2, 3, 4))
    return blocks if all(blocks) else ()


def _config(
    sizes: Sizes, keys: Collection[str], activation: Activation, image: Mapping[str, Any], text: Mapping[str, Any]
) -> DualEncoderConfig:
    blocks = resnet_blocks(keys)
    return DualEncoderConfig(
        image=resnet_config(sizes, blocks) if blocks else vit_config(sizes, image, activation),
        text=clip_text_config(sizes, text, activation),
        embed_dim=sizes.shape("text/projection/kernel", 2)[1],
    )


_DROPPED = (
    COUNTERS,
    (r"input_resolution|context_length|vocab_size", "sizes, which the tensors' shapes tell"),
    (r"(.*\.)?attn_mask", "the causal mask as a buffer"),
)
OPENAI_CLIP = Family(
    name="openai-clip",
    title="CLIP (OpenAI's archives)",
    signature=("visual.conv1.weight", "token_embedding.weight"),
    table=table,
    config=openai_config,
    dropped=_DROPPED,
    tokenizer="clip_bpe",
    vocabulary=("open_clip", "bpe_simple_vocab_16e6.txt.gz"),
    context_length=None,
    interpolation="open_clip",
)
OPEN_CLIP = Family(
    name="open-clip",
    title="CLIP (open_clip)",
    signature=("visual.conv1.weight", "token_embedding.weight"),
    table=table,
    config=open_clip_config,
    dropped=_DROPPED,
    tokenizer="clip_bpe",
    vocabulary=("open_clip", "bpe_simple_vocab_16e6.txt.gz"),
    context_length=None,
    interpolation="open_clip",
)
