"""CLIP in OpenAI's layout: OpenAI's TorchScript archives, and open_clip's checkpoints."""

from collections.abc import Collection, Mapping
from typing import Any

from conversion.families.family import COUNTERS, Family, Hints
from conversion.rows import Row, Table
from conversion.sizes import Sizes, clip_text_config, count, resnet_config, vit_config
from conversion.towers import openai_resnet, openai_text, openai_vit
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.transformer import Activation

# Of open_clip's model configurations: what is understood, and values of further fields that change nothing.
_UNDERSTOOD = {
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "heads"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
_NEUTRAL: tuple[Any, ...] = (None, False, 0, 0.0, {}, "tok", "learnable", "argmax")


def table(keys: Collection[str]) -> Table:
    """All rows."""
    blocks = resnet_blocks(keys)
    image = openai_resnet(blocks) if blocks else openai_vit()
    return (*image, *openai_text(), Row("logit_scale", "logit_scale"))


def openai_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """OpenAI's models have QuickGELU everywhere."""
    return _config(sizes, keys, hints.activation or "quick_gelu", {}, {})


def open_clip_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """open_clip's models.

    Raises:
      JclipError: nothing says which activation, or the configuration has parts that our towers lack.
    """
    said = hints.part("model_cfg") or hints.config
    if not said.get("vision_cfg") and hints.activation is None:
        raise JclipError(
            f"{sizes.where} does not say which activation it was trained with: put open_clip_config.json beside it, or "
            "give --activation: quick_gelu (OpenAI's weights) or gelu (most of LAION's)"
        )
    parts = {}
    for name, understood in _UNDERSTOOD.items():
        parts[name] = said.get(name) or {}
        if not isinstance(parts[name], Mapping):
            raise JclipError(f"{sizes.said_in}: {name} is {parts[name]!r}, but must hold fields: fetch it again")
        for field, value in parts[name].items():
            if field not in understood and value not in _NEUTRAL:
                raise JclipError(
                    f"{sizes.said_in}: {name}.{field} is {value!r}, which is not supported: convert another model"
                )
    activation: Activation = hints.activation or ("quick_gelu" if said.get("quick_gelu") else "gelu")
    vision, text = parts["vision_cfg"], parts["text_cfg"]
    image = {}
    if "head_width" in vision and isinstance(vision.get("width"), int):
        each = vision["head_width"]
        if not isinstance(each, int) or each < 1:
            raise JclipError(f"{sizes.said_in}: vision_cfg.head_width is {each!r}, but must count channels: mend it")
        image = {"num_attention_heads": max(1, vision["width"] // each)}
    return _config(sizes, keys, activation, image, {"num_attention_heads": text["heads"]} if "heads" in text else {})


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
    (r"attn_mask", "the causal mask as a buffer"),
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
