"""BERT and XLM-R, with AltCLIP's head and without, see jclip.models.bert.

Axes: b batch, l tokens, k keys, d width.
"""

import numpy as np

from jclip.export.onnx.graph import Graph, Value
from jclip.export.onnx.layers import (
    attention,
    dense,
    first_token,
    layer_norm,
    layer_of,
    masked_unless,
    mlp,
    positions,
    without_axis,
)
from jclip.export.onnx.towers import Variables, writes
from jclip.models.bert import BertConfig
from jclip.models.build import ModelConfig


@writes(BertConfig)
def bert(graph: Graph, tower: BertConfig, variables: Variables, ids_bl: Value, model: ModelConfig) -> Value:
    """Adds a BERT. Its last layer is computed for the first token only, unless all tokens are averaged.

    Padding is masked inside the graph.
    """
    params, epsilon = variables["params"], tower.layer_norm_eps
    mean = getattr(model, "pooling", "cls") == "mean"
    with graph.scope("mask"):
        is_token_bl = graph.op("Not", graph.op("Equal", ids_bl, graph.constant(tower.pad_id, np.int64)))
        token_bl = graph.op("Cast", is_token_bl, to=_INT64)
        position_l = positions(graph, ids_bl)
        mask_b11k = _padding(graph, token_bl, position_l)
    with graph.scope("embedding"):
        word = graph.weight("word_embedding", params["word_embedding"])
        # Every token has the same type, so its embedding is a part of the position's.
        table = graph.weight("position_embedding", params["position_embedding"] + params["token_type_embedding"][0])
        position = position_l if tower.position_offset == "none" else _after_padding(graph, token_bl, tower.pad_id)
        x_bld = graph.op("Add", graph.op("Gather", word, ids_bl), graph.op("Gather", table, position))
    x_bld = layer_norm(graph, "embedding_norm", params, x_bld, epsilon)
    for number in range(tower.layers):
        with graph.scope(f"layers.{number}"):
            own = layer_of(params["layers"], number)
            x_bqd = first_token(graph, x_bld) if number == tower.layers - 1 and not mean else x_bld
            mixed_bqd = attention(graph, own, x_bqd, x_bld, tower.heads, mask_b11k)
            x_bqd = layer_norm(graph, "attention_norm", own, graph.op("Add", x_bqd, mixed_bqd), epsilon)
            changed_bqd = graph.op("Add", x_bqd, mlp(graph, own, x_bqd, "gelu"))
            x_bld = layer_norm(graph, "mlp_norm", own, changed_bqd, epsilon)
    x_bd = _mean(graph, x_bld, token_bl) if mean else without_axis(graph, x_bld)
    if "head" in params:
        x_bd = dense(graph, "head", params, layer_norm(graph, "head_norm", params, x_bd, epsilon))
    return dense(graph, "projection", params, x_bd) if "projection" in params else x_bd


_INT64, _FLOAT = 7, 1  # TensorProto.INT64 and .FLOAT


def _padding(graph: Graph, token_bl: Value, position_l: Value) -> Value:
    """Returns the mask of the keys after the last token of each text; a text of padding alone keeps its first."""
    one = graph.constant(1, np.int64)
    number_bl = graph.op("Mul", token_bl, graph.op("Add", position_l, one))
    length_b1 = graph.op("Max", graph.op("ReduceMax", number_bl, graph.ints(1), keepdims=1), one)
    length_b111 = graph.op("Unsqueeze", length_b1, graph.ints(2, 3))
    return masked_unless(graph, graph.op("Less", position_l, length_b111))


def _after_padding(graph: Graph, token_bl: Value, pad_id: int) -> Value:
    """Returns XLM-R's positions: tokens count from pad_id + 1, and padding has pad_id."""
    count_bl = graph.op("Mul", graph.op("CumSum", token_bl, graph.constant(1, np.int64)), token_bl)
    return graph.op("Add", count_bl, graph.constant(pad_id, np.int64))


def _mean(graph: Graph, x_bld: Value, token_bl: Value) -> Value:
    """Returns the mean state of the tokens that are not padding."""
    weight_bl = graph.op("Cast", token_bl, to=_FLOAT)
    count_b1 = graph.op("ReduceSum", weight_bl, graph.ints(1), keepdims=1)
    weight_bl = graph.op("Div", weight_bl, graph.op("Max", count_b1, graph.constant(1, np.float32)))
    return without_axis(graph, graph.op("MatMul", graph.op("Unsqueeze", weight_bl, graph.ints(1)), x_bld))
