"""Vision transformers: their keys in both layouts, and their configuration in each library's terms."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from jclip.conversion.towers.rows import MappingRow, conv, hf_layers, norm, openai_layers
from jclip.conversion.towers.sizes import HEAD_WIDTH, Sizes, activation_of, agree_in_sizes, check_only, heads_of
from jclip.conversion.towers.tower import Fields, TowerFormat
from jclip.errors import JclipError
from jclip.models.transformer import CLIP_EPS, Activation
from jclip.models.vit import VitConfig

_HEAD_WIDTHS = {1280: 80}  # ViT-H/14
_LARGEST_GRID = 256  # patches along a side, so that a typing error in a size cannot fill the memory


def hf_vit() -> Iterable[MappingRow]:
    """Yields the rows of the ViT of CLIPModel, ChineseCLIPModel and AltCLIPModel, without its projection."""
    yield MappingRow("image/class_embedding", "vision_model.embeddings.class_embedding")
    yield from conv("image/patch", "vision_model.embeddings.patch_embedding")
    yield MappingRow("image/position_embedding", "vision_model.embeddings.position_embedding.weight")
    yield from norm("image/pre_norm", "vision_model.pre_layrnorm")  # sic
    yield from hf_layers("image/layers", "vision_model.")
    yield from norm("image/post_norm", "vision_model.post_layernorm")


def openai_vit() -> Iterable[MappingRow]:
    """Yields the rows of a ViT in OpenAI's layout."""
    yield MappingRow("image/class_embedding", "visual.class_embedding")
    yield from conv("image/patch", "visual.conv1")
    yield MappingRow("image/position_embedding", "visual.positional_embedding")
    yield from norm("image/pre_norm", "visual.ln_pre")
    yield from openai_layers("image/layers", "visual.transformer.resblocks")
    yield from norm("image/post_norm", "visual.ln_post")
    yield MappingRow("image/projection/kernel", "visual.proj")  # a bare parameter: (in, out) like ours


def vit_config(sizes: Sizes, said: Mapping[str, Any], activation: Activation) -> VitConfig:
    """Returns the configuration of a ViT.

    `said` is a vision_config of transformers, or empty; `activation` is its default.
    """
    width = sizes.shape("image/class_embedding", 1)[0]
    patch = sizes.shape("image/patch/kernel", 4)[0]
    hidden = sizes.shape("image/layers/mlp/fc1/kernel", 2)[1]
    if width < 1 or hidden % width:
        raise JclipError(
            f"{sizes.where}: an MLP of width {hidden} on states of width {width} is not of a known ViT: convert "
            "another model"
        )
    image_size, layers = patch * sizes.grid("image/position_embedding"), sizes.layers("image/layers/mlp/fc1/kernel")
    config = VitConfig(image_size, patch, width, layers, heads=1, mlp_ratio=hidden // width)
    where = f"{sizes.config_name}: vision_config."
    agree_in_sizes(said, _hf(config), where)
    check_only(said, "layer_norm_eps", CLIP_EPS, where)
    heads = heads_of(said, "num_attention_heads", width, _default_heads(width), where)
    return replace(config, heads=heads, activation=activation_of(said, activation, where))


def _default_heads(width: int) -> int:
    return max(1, width // _HEAD_WIDTHS.get(width, HEAD_WIDTH))


def _hf(config: VitConfig) -> Fields:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.mlp_ratio * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.activation,
        "layer_norm_eps": CLIP_EPS,
        "attention_dropout": 0.0,
    }


def _cn_clip(config: VitConfig) -> Fields:
    return {
        "image_resolution": config.image_size,
        "vision_layers": config.layers,
        "vision_width": config.width,
        "vision_patch_size": config.patch_size,
        "vision_head_width": config.width // config.heads,
    }


def _cn_clip_needs(config: VitConfig) -> str:
    if config == replace(config, activation="quick_gelu", mlp_ratio=4, heads=_default_heads(config.width)):
        return ""
    return (
        "cn_clip's ViT has QuickGELU, an MLP of 4 times its width and heads of 64 channels (80 in ViT-H/14), and this "
        "one differs"
    )


def _open_clip(config: VitConfig) -> Fields:
    return {
        "layers": config.layers,
        "width": config.width,
        "head_width": config.width // config.heads,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": config.patch_size,
        "image_size": config.image_size,
    }


def _resize(config: VitConfig, size: int) -> tuple[VitConfig, int]:
    grid, rest = divmod(size, config.patch_size)
    if rest or not 1 <= grid <= _LARGEST_GRID:
        raise JclipError(
            f"--image-size: {size} is not a multiple of patch_size {config.patch_size}, or more than {_LARGEST_GRID} "
            "times as large: choose another"
        )
    return replace(config, image_size=size), grid


VIT = TowerFormat(
    title="a ViT",
    hf=_hf,
    cn_clip=_cn_clip,
    cn_clip_needs=_cn_clip_needs,
    open_clip=_open_clip,
    openai_layers=lambda config: {"image/layers/{i}": "visual.transformer.resblocks.{i}"},
    resize=_resize,
)
