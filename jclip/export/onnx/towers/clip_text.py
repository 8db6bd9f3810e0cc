"""CLIP's causal text transformer, see jclip.models.clip_text.

Axes: b batch, l tokens, q queries, k keys, d width.
"""

import numpy as np

from jclip.export.onnx.graph import Graph, Value
from jclip.export.onnx.layers import (
    dense,
    layer_norm,
    layer_of,
    masked_unless,
    positions,
    pre_norm_layer,
    without_axis,
)
from jclip.export.onnx.towers import Variables, writes
from jclip.models.build import ModelConfig
from jclip.models.clip_text import ClipTextConfig


@writes(ClipTextConfig)
def clip_text(graph: Graph, tower: ClipTextConfig, variables: Variables, ids_bl: Value, model: ModelConfig) -> Value:
    """Adds CLIP's text transformer. Its last layer is computed for end-of-text only, the largest id of a text."""
    del model
    params = variables["params"]
    with graph.scope("embedding"):
        position_l = positions(graph, ids_bl)
        token_bld = graph.op("Gather", graph.weight("token_embedding", params["token_embedding"]), ids_bl)
        table = graph.weight("position_embedding", params["position_embedding"])
        x_bld = graph.op("Add", token_bld, graph.op("Gather", table, position_l))
    with graph.scope("mask"):
        position_q1 = graph.op("Unsqueeze", position_l, graph.ints(1))
        causal_qk = masked_unless(graph, graph.op("LessOrEqual", position_l, position_q1))
        end_b1 = graph.op("ArgMax", ids_bl, axis=1, keepdims=1)
        end_b111 = graph.op("Unsqueeze", end_b1, graph.ints(2, 3))
        to_end_b11k = masked_unless(graph, graph.op("LessOrEqual", position_l, end_b111))
    for number in range(tower.layers):
        last = number == tower.layers - 1
        with graph.scope(f"layers.{number}"):
            wanted_b1d = _token(graph, x_bld, end_b1, tower.width) if last else None
            x_bld = pre_norm_layer(
                graph,
                layer_of(params["layers"], number),
                x_bld,
                tower.heads,
                tower.activation,
                to_end_b11k if last else causal_qk,
                wanted_b1d,
            )
    return dense(graph, "projection", params, layer_norm(graph, "final_norm", params, without_axis(graph, x_bld)))


def _token(graph: Graph, x_bld: Value, token_b1: Value, width: int) -> Value:
    """Returns the states of one token of each text, (b, 1, d)."""
    at_b1d = graph.op("Expand", graph.op("Unsqueeze", token_b1, graph.ints(2)), graph.constant((1, 1, width), np.int64))
    return graph.op("GatherElements", x_bld, at_b1d, axis=1)
