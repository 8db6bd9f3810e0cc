"""BERT and XLM-R: their keys, and their configuration in each library's terms."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from jclip.conversion.towers.rows import MappingRow, attention, dense, fused_attention, norm
from jclip.conversion.towers.sizes import Sizes, agree_in_sizes, check_only, fraction_of, heads_for, heads_of
from jclip.conversion.towers.tower import Fields, TowerFormat
from jclip.models.bert import BertConfig

_OF_EVERY_BERT = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}


def bert_rows(prefix: str, *, fused: bool = False) -> Iterable[MappingRow]:
    """Yields the rows of a BERT without pooler.

    `fused` is True if query, key and value are one tensor, as cn_clip saves them with flash attention.
    """
    for name in ("word", "position", "token_type"):
        yield MappingRow(f"text/{name}_embedding", f"{prefix}embeddings.{name}_embeddings.weight")
    yield from norm("text/embedding_norm", f"{prefix}embeddings.LayerNorm")
    ours, theirs = "text/layers", f"{prefix}encoder.layer.{{i}}"
    core = f"{theirs}.attention.self"
    if fused:
        wqkv = f"{core}.Wqkv"
        yield from fused_attention(f"{ours}/attention", f"{wqkv}.weight", f"{wqkv}.bias", f"{core}.out_proj")
    else:
        names = {name: f"{core}.{name}" for name in ("query", "key", "value")}
        yield from attention(f"{ours}/attention", names | {"output": f"{theirs}.attention.output.dense"})
    yield from norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
    yield from dense(f"{ours}/mlp/fc1", f"{theirs}.intermediate.dense")
    yield from dense(f"{ours}/mlp/fc2", f"{theirs}.output.dense")
    yield from norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm")


def bert_config(sizes: Sizes, said: Mapping[str, Any], like: BertConfig, part: str = "text_config.") -> BertConfig:
    """Returns the configuration of a BERT.

    `said` is a text_config of transformers, or empty. `like` provides the kind of positions, the padding id, and the
    defaults of epsilon and dropout. `part` is the prefix of the fields in messages.
    """
    vocab_size, width = sizes.shape("text/word_embedding", 2)
    config = replace(
        like,
        vocab_size=vocab_size,
        width=width,
        layers=sizes.layers("text/layers/mlp/fc1/kernel"),
        heads=1,
        intermediate=sizes.shape("text/layers/mlp/fc1/kernel", 2)[1],
        max_positions=sizes.shape("text/position_embedding", 2)[0],
        type_vocab_size=sizes.shape("text/token_type_embedding", 2)[0],
    )
    where = f"{sizes.config_name}: {part}"
    agree_in_sizes(said, bert_to_hf(config), where)
    for field, value in (_OF_EVERY_BERT | {"pad_token_id": like.pad_id}).items():
        check_only(said, field, value, where)
    dropout = fraction_of(said, "hidden_dropout_prob", like.dropout, where)
    attention_dropout = fraction_of(said, "attention_probs_dropout_prob", dropout, where)
    return replace(
        config,
        heads=heads_of(said, "num_attention_heads", width, heads_for(width), where),
        layer_norm_eps=fraction_of(said, "layer_norm_eps", like.layer_norm_eps, where),
        dropout=dropout,
        attention_dropout=None if attention_dropout == dropout else attention_dropout,
    )


def bert_to_hf(config: BertConfig) -> Fields:
    """Returns a BERT's configuration in transformers' terms."""
    attention_dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": attention_dropout,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": config.pad_id,
        **({"bos_token_id": 0, "eos_token_id": 2} if config.position_offset == "after_padding" else {}),
    }


def _cn_clip(config: BertConfig) -> Fields:
    return {
        "vocab_size": config.vocab_size,
        "text_attention_probs_dropout_prob": config.dropout,
        "text_hidden_act": "gelu",
        "text_hidden_dropout_prob": config.dropout,
        "text_hidden_size": config.width,
        "text_initializer_range": 0.02,
        "text_intermediate_size": config.intermediate,
        "text_max_position_embeddings": config.max_positions,
        "text_num_attention_heads": config.heads,
        "text_num_hidden_layers": config.layers,
        "text_type_vocab_size": config.type_vocab_size,
    }


def _cn_clip_needs(config: BertConfig) -> str:
    if (config.layer_norm_eps, config.heads) == (1e-12, heads_for(config.width)):
        return ""
    return (
        "cn_clip's BERT has an epsilon of 1e-12 and heads of 64 channels, and this one has "
        f"{config.layer_norm_eps:g} and heads of {config.width // config.heads}"
    )


BERT = TowerFormat(title="a BERT", hf=bert_to_hf, cn_clip=_cn_clip, cn_clip_needs=_cn_clip_needs)
XLM_R = TowerFormat(title="an XLM-R", hf=bert_to_hf)
