"""Parts that the towers share, as nodes of a graph: the counterparts of jclip.models.attention and .transformer.

Axes: b batch, l tokens, q queries, k keys, h heads, c channels of a head, d width.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jclip.export.onnx.graph import Graph, Value
from jclip.models.transformer import CLIP_EPS, Activation

Params = Mapping[str, Any]
"""Nested parameters of a module, host arrays."""

MASKED = float(np.finfo(np.float32).min)
"""Logit of a key that must not be attended to. Its probability is exactly 0."""


def dense(graph: Graph, name: str, params: Params, x: Value, factor: float = 1.0) -> Value:
    """Adds a linear map with the parameters `params[name]`, its result multiplied by `factor`."""
    with graph.scope(name):
        own = params[name] if factor == 1 else {part: leaf * np.float32(factor) for part, leaf in params[name].items()}
        y = graph.op("MatMul", x, graph.weight("kernel", own["kernel"]))
        return graph.op("Add", y, graph.weight("bias", own["bias"])) if "bias" in own else y


def layer_norm(graph: Graph, name: str, params: Params, x: Value, epsilon: float = CLIP_EPS) -> Value:
    """Adds a LayerNorm over the last axis."""
    with graph.scope(name):
        own = params[name]
        scale, bias = graph.weight("scale", own["scale"]), graph.weight("bias", own["bias"])
        return graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def attention(
    graph: Graph, params: Params, x_bqd: Value, context_bkd: Value, heads: int, mask_bhqk: Value | None = None
) -> Value:
    """Adds multi-head attention. `mask_bhqk` is added to the logits, and broadcasts.

    The scale of the logits is folded into the query's projection.
    """
    with graph.scope("attention"):
        own = params["attention"]
        width = own["query"]["kernel"].shape[1]
        channels = width // heads

        def project(name: str, x: Value, perm: list[int], factor: float = 1.0) -> Value:
            apart = graph.op("Reshape", dense(graph, name, own, x, factor), graph.ints(0, 0, heads, channels))
            return graph.op("Transpose", apart, perm=perm)

        queries_bhqc = project("query", x_bqd, [0, 2, 1, 3], channels**-0.5)
        keys_bhck = project("key", context_bkd, [0, 2, 3, 1])
        values_bhkc = project("value", context_bkd, [0, 2, 1, 3])
        logits_bhqk = graph.op("MatMul", queries_bhqc, keys_bhck)
        if mask_bhqk is not None:
            logits_bhqk = graph.op("Add", logits_bhqk, mask_bhqk)
        mixed_bhqc = graph.op("MatMul", graph.op("Softmax", logits_bhqk, axis=-1), values_bhkc)
        mixed_bqhc = graph.op("Transpose", mixed_bhqc, perm=[0, 2, 1, 3])
        return dense(graph, "output", own, graph.op("Reshape", mixed_bqhc, graph.ints(0, 0, width)))


def mlp(graph: Graph, params: Params, x: Value, activation: Activation) -> Value:
    """Adds a multilayer perceptron with one hidden layer."""
    with graph.scope("mlp"):
        hidden = _ACTIVATIONS[activation](graph, dense(graph, "fc1", params["mlp"], x))
        return dense(graph, "fc2", params["mlp"], hidden)


def pre_norm_layer(
    graph: Graph,
    params: Params,
    x_bld: Value,
    heads: int,
    activation: Activation,
    mask_bhqk: Value | None = None,
    wanted_bqd: Value | None = None,
) -> Value:
    """Adds a layer of CLIP's transformers; for the states `wanted_bqd` of `x_bld` only, if they are given."""
    normed_bld = layer_norm(graph, "attention_norm", params, x_bld)
    x_bqd, normed_bqd = x_bld, normed_bld
    if wanted_bqd is not None:
        x_bqd, normed_bqd = wanted_bqd, layer_norm(graph, "attention_norm", params, wanted_bqd)
    x_bqd = graph.op("Add", x_bqd, attention(graph, params, normed_bqd, normed_bld, heads, mask_bhqk))
    return graph.op("Add", x_bqd, mlp(graph, params, layer_norm(graph, "mlp_norm", params, x_bqd), activation))


def layer_of(params: Params, number: int) -> Params:
    """Returns the parameters of one layer of a stack."""
    return {
        name: layer_of(leaf, number) if isinstance(leaf, Mapping) else leaf[number] for name, leaf in params.items()
    }


def first_token(graph: Graph, x_bld: Value) -> Value:
    """Returns the states of the first token, (b, 1, d)."""
    return graph.op("Slice", x_bld, graph.ints(0), graph.ints(1), graph.ints(1))


def without_axis(graph: Graph, x_b1d: Value) -> Value:
    """Returns (b, d) for (b, 1, d)."""
    return graph.op("Squeeze", x_b1d, graph.ints(1))


def l2_normalised(graph: Graph, x_bd: Value) -> Value:
    """Adds `jclip.losses.normalise.l2_normalised`: rows of length 1, and zeros for rows of zeros."""
    with graph.scope("l2_normalised"):
        tiny = graph.constant(np.finfo(np.float32).tiny, np.float32)
        largest_b1 = graph.op("ReduceMax", graph.op("Abs", x_bd), graph.ints(1), keepdims=1)
        x_bd = graph.op("Div", x_bd, graph.op("Max", largest_b1, tiny))
        length_b1 = graph.op("ReduceL2", x_bd, graph.ints(1), keepdims=1)
        return graph.op("Div", x_bd, graph.op("Max", length_b1, graph.constant(0.5, np.float32)))


def positions(graph: Graph, ids_bl: Value) -> Value:
    """Returns the positions of a text's tokens, int64 (l,): 0, 1, …"""
    length = graph.op("Gather", graph.op("Shape", ids_bl), graph.constant(1, np.int64))
    return graph.op("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))


def masked_unless(graph: Graph, attended: Value) -> Value:
    """Returns a mask to add to logits, from booleans: 0 where a key is attended to."""
    return graph.op("Where", attended, graph.constant(0, np.float32), graph.constant(MASKED, np.float32))


def _quick_gelu(graph: Graph, x: Value) -> Value:
    return graph.op("Mul", x, graph.op("Sigmoid", graph.op("Mul", x, graph.constant(1.702, np.float32))))


def _gelu(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x)


_ACTIVATIONS = {"quick_gelu": _quick_gelu, "gelu": _gelu}
