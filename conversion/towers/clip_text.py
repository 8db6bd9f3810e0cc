"""CLIP's own text tower: its keys in both layouts, and its configuration in each library's terms."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from jclip.conversion.towers.rows import MappingRow, hf_layers, norm, openai_layers
from jclip.conversion.towers.sizes import Sizes, activation_of, agree_in_sizes, check_only, heads_for, heads_of
from jclip.conversion.towers.tower import Fields, TowerFormat
from jclip.errors import JclipError
from jclip.models.clip_text import ClipTextConfig
from jclip.models.transformer import CLIP_EPS, Activation


def hf_clip_text() -> Iterable[MappingRow]:
    """Yields the rows of CLIPModel's text tower, without its projection."""
    yield MappingRow("text/token_embedding", "text_model.embeddings.token_embedding.weight")
    yield MappingRow("text/position_embedding", "text_model.embeddings.position_embedding.weight")
    yield from hf_layers("text/layers", "text_model.")
    yield from norm("text/final_norm", "text_model.final_layer_norm")


def openai_clip_text() -> Iterable[MappingRow]:
    """Yields the rows of CLIP's text tower in OpenAI's layout, which has no common prefix."""
    yield MappingRow("text/token_embedding", "token_embedding.weight")
    yield MappingRow("text/position_embedding", "positional_embedding")
    yield from openai_layers("text/layers", "transformer.resblocks")
    yield from norm("text/final_norm", "ln_final")
    yield MappingRow("text/projection/kernel", "text_projection")


def clip_text_config(sizes: Sizes, said: Mapping[str, Any], activation: Activation) -> ClipTextConfig:
    """Returns the configuration of CLIP's text tower; arguments as in `vit_config`."""
    vocab_size, width = sizes.shape("text/token_embedding", 2)
    hidden = sizes.shape("text/layers/mlp/fc1/kernel", 2)[1]
    if hidden != 4 * width:
        raise JclipError(
            f"{sizes.where}: the text tower's MLP has width {hidden}, not 4 x {width}: it is not CLIP's text tower, "
            "convert another model"
        )
    context_length, layers = sizes.shape("text/position_embedding", 2)[0], sizes.layers("text/layers/mlp/fc1/kernel")
    config = ClipTextConfig(vocab_size, context_length, width, layers, heads=1)
    where = f"{sizes.config_name}: text_config."
    agree_in_sizes(said, _hf(config), where)
    check_only(said, "layer_norm_eps", CLIP_EPS, where)
    heads = heads_of(said, "num_attention_heads", width, heads_for(width), where)
    return replace(config, heads=heads, activation=activation_of(said, activation, where))


def _hf(config: ClipTextConfig) -> Fields:
    end = config.vocab_size - 1
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context_length,
        "hidden_act": config.activation,
        "layer_norm_eps": CLIP_EPS,
        "attention_dropout": 0.0,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }


def _open_clip(config: ClipTextConfig) -> Fields:
    names = ("context_length", "vocab_size", "width", "heads", "layers")
    return {name: getattr(config, name) for name in names}


CLIP_TEXT = TowerFormat(
    title="CLIP's text tower",
    hf=_hf,
    open_clip=_open_clip,
    token_embedding="text/token_embedding",
    ends_in_largest_id=True,
)
