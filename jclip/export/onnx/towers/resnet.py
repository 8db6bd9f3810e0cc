"""CLIP's modified ResNet, see jclip.models.resnet.

Axes: b batch, c channels, h height, w width, l positions (their mean first).
"""

from typing import Any

import numpy as np

from jclip.export.onnx.graph import Graph, Value
from jclip.export.onnx.layers import attention, first_token, without_axis
from jclip.export.onnx.towers import Variables, writes
from jclip.models.build import ModelConfig
from jclip.models.resnet import EPSILON, ResNetConfig


@writes(ResNetConfig)
def resnet(graph: Graph, tower: ResNetConfig, variables: Variables, images_bchw: Value, model: ModelConfig) -> Value:
    """Adds a modified ResNet. Batch norms are folded into the convolutions before them."""
    del model
    params, stats = variables["params"], variables["batch_stats"]
    with graph.scope("stem"):
        x = images_bchw
        for number, stride in enumerate((2, 1, 1), 1):
            x = _conv_norm(graph, params["stem"], stats["stem"], f"conv_{number}", f"norm_{number}", x, stride)
            x = graph.op("Relu", x)
        x = _pool(graph, x)
    for name in tower.blocks:
        with graph.scope(name):
            halves = name.endswith("block_1") and not name.startswith("stage_1")
            x = _block(graph, params[name], stats[name], x, halves)
    with graph.scope("attention_pool"):
        return _attention_pool(graph, params["attention_pool"], tower.heads, x)


def _block(graph: Graph, params: Variables, stats: Variables, x: Value, halves: bool) -> Value:
    branch = graph.op("Relu", _conv_norm(graph, params, stats, "conv_1", "norm_1", x))
    branch = graph.op("Relu", _conv_norm(graph, params, stats, "conv_2", "norm_2", branch))
    branch = _pool(graph, branch) if halves else branch
    branch = _conv_norm(graph, params, stats, "conv_3", "norm_3", branch)
    if "shortcut_conv" in params:
        x = _pool(graph, x) if halves else x
        x = _conv_norm(graph, params, stats, "shortcut_conv", "shortcut_norm", x)
    return graph.op("Relu", graph.op("Add", branch, x))


def _conv_norm(
    graph: Graph, params: Variables, stats: Variables, conv: str, norm: str, x: Value, stride: int = 1
) -> Value:
    with graph.scope(conv):
        kernel_oihw, bias_o = _folded(params[conv]["kernel"], params[norm], stats[norm])
        around = kernel_oihw.shape[-1] // 2
        weights = graph.weight("kernel", kernel_oihw), graph.weight("bias", bias_o)
        return graph.op("Conv", x, *weights, strides=[stride, stride], pads=[around] * 4)


def _folded(kernel_hwio: Any, norm: Variables, stats: Variables) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of a convolution followed by a batch norm, computed in float64."""
    factor_o = norm["scale"].astype(np.float64) / np.sqrt(stats["var"].astype(np.float64) + EPSILON)
    return (kernel_hwio * factor_o).transpose(3, 2, 0, 1), norm["bias"] - stats["mean"] * factor_o


def _pool(graph: Graph, x: Value) -> Value:
    return graph.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


def _attention_pool(graph: Graph, params: Variables, heads: int, x_bchw: Value) -> Value:
    x_bcl = graph.op("Reshape", x_bchw, graph.ints(0, 0, -1))
    x_blc = graph.op("Transpose", x_bcl, perm=[0, 2, 1])
    mean_b1c = graph.op("ReduceMean", x_blc, graph.ints(1), keepdims=1)
    x_blc = graph.op("Concat", mean_b1c, x_blc, axis=1)
    x_blc = graph.op("Add", x_blc, graph.weight("position_embedding", params["position_embedding"]))
    return without_axis(graph, attention(graph, params, first_token(graph, x_blc), x_blc, heads))
