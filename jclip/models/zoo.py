"""Configurations of the published models, by name. Weights come from bundles.

Sources: the towers of Radford et al. 2021 (tables 19 and 20), Yang et al. 2022 (Chinese-CLIP, table 6), Chen et al.
2022 (AltCLIP), and the configuration files that were released with the weights.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.names import suggestion

_T = TypeVar("_T")

_B32 = VitConfig(image_size=224, patch_size=32, width=768, layers=12, heads=12)
_B16 = replace(_B32, patch_size=16)
_L14 = VitConfig(image_size=224, patch_size=14, width=1024, layers=24, heads=16)
_L14_336 = replace(_L14, image_size=336)
_H14 = VitConfig(image_size=224, patch_size=14, width=1280, layers=32, heads=16)

_CLIP_TEXT_B = ClipTextConfig(vocab_size=49408, context_length=77, width=512, layers=12, heads=8)
_CLIP_TEXT_L = replace(_CLIP_TEXT_B, width=768, heads=12)
_CLIP_TEXT_H = replace(_CLIP_TEXT_B, width=1024, layers=24, heads=16, activation="gelu")

_ROBERTA_WWM_BASE = BertConfig(
    vocab_size=21128,
    width=768,
    layers=12,
    heads=12,
    intermediate=3072,
    max_positions=512,
    type_vocab_size=2,
    pad_id=0,
    layer_norm_eps=1e-12,
)
# The paper's table 6 gives the large one 24 heads, which do not divide 1024; its released configuration has 16.
_ROBERTA_WWM_LARGE = replace(_ROBERTA_WWM_BASE, width=1024, layers=24, heads=16, intermediate=4096)
_RBT3 = replace(_ROBERTA_WWM_BASE, layers=3)
_XLM_R_BASE = BertConfig(
    vocab_size=250002,
    width=768,
    layers=12,
    heads=12,
    intermediate=3072,
    max_positions=514,
    type_vocab_size=1,
    pad_id=1,
    layer_norm_eps=1e-5,
    position_offset="after_padding",
)
_XLM_R_LARGE = replace(_XLM_R_BASE, width=1024, layers=24, heads=16, intermediate=4096)

TEXT_ENCODERS: Mapping[str, BertConfig] = {
    "roberta-wwm-base": _ROBERTA_WWM_BASE,
    "roberta-wwm-large": _ROBERTA_WWM_LARGE,
    "rbt3": _RBT3,
    "xlm-r-base": _XLM_R_BASE,
    "xlm-r-large": _XLM_R_LARGE,
}
"""Text encoders that a text tower can start from."""

MODELS: Mapping[str, DualEncoderConfig] = {
    "clip-rn50": DualEncoderConfig(ResNetConfig(image_size=224), _CLIP_TEXT_B, 1024),
    "clip-vit-b-32": DualEncoderConfig(_B32, _CLIP_TEXT_B, 512),
    "clip-vit-b-16": DualEncoderConfig(_B16, _CLIP_TEXT_B, 512),
    "clip-vit-l-14": DualEncoderConfig(_L14, _CLIP_TEXT_L, 768),
    "clip-vit-l-14-336": DualEncoderConfig(_L14_336, _CLIP_TEXT_L, 768),
    "clip-vit-h-14": DualEncoderConfig(replace(_H14, activation="gelu"), _CLIP_TEXT_H, 1024),  # LAION's
    "chinese-clip-rn50": DualEncoderConfig(ResNetConfig(image_size=224), _RBT3, 1024),
    "chinese-clip-vit-b-32": DualEncoderConfig(_B32, _ROBERTA_WWM_BASE, 512),  # never released
    "chinese-clip-vit-b-16": DualEncoderConfig(_B16, _ROBERTA_WWM_BASE, 512),
    "chinese-clip-vit-l-14": DualEncoderConfig(_L14, _ROBERTA_WWM_BASE, 768),
    "chinese-clip-vit-l-14-336": DualEncoderConfig(_L14_336, _ROBERTA_WWM_BASE, 768),
    # This image tower started from LAION's, which was trained with the exact GELU. Chinese-CLIP's code has QuickGELU in
    # every ViT, so the released weights were trained with that.
    "chinese-clip-vit-h-14": DualEncoderConfig(_H14, _ROBERTA_WWM_LARGE, 1024),
    "altclip": DualEncoderConfig(_L14, _XLM_R_LARGE, 768, head_width=768),
    "altclip-m9": DualEncoderConfig(_L14, replace(_XLM_R_LARGE, dropout=0.0), 768, head_width=768),
    # The activation of the image tower is not known: LAION's ViT-H/14 has the exact GELU, and transformers' default for
    # an AltCLIP configuration without one is QuickGELU, as here. A conversion must follow vision_config.hidden_act of
    # its checkpoint. The dropout is transformers' default too.
    "altclip-m18": DualEncoderConfig(_H14, _XLM_R_LARGE, 1024, head_width=1024),
}
"""Published models."""


def list_models() -> list[str]:
    """Returns the names of the published models."""
    return list(MODELS)


def get_config(name: str) -> DualEncoderConfig:
    """Returns the configuration of a published model. Raises JclipError if the name is unknown."""
    return _find(MODELS, name, "model")


def get_text_encoder(name: str) -> BertConfig:
    """Returns the configuration of a published text encoder. Raises JclipError if the name is unknown."""
    return _find(TEXT_ENCODERS, name, "text encoder")


def _find(table: Mapping[str, _T], name: str, what: str) -> _T:
    if name in table:
        return table[name]
    raise JclipError(f"{what} {name!r} is unknown: {suggestion(name, table)}")
