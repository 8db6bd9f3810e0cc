"""CLIP's vision transformer, see jclip.models.vit.

Axes: b batch, l tokens, d width, k pixels of a patch.
"""

import numpy as np

from jclip.export.onnx.graph import Graph, Value
from jclip.export.onnx.layers import dense, first_token, layer_norm, layer_of, pre_norm_layer, without_axis
from jclip.export.onnx.towers import Variables, writes
from jclip.models.build import ModelConfig
from jclip.models.vit import VitConfig


@writes(VitConfig)
def vit(graph: Graph, tower: VitConfig, variables: Variables, images_bchw: Value, model: ModelConfig) -> Value:
    """Adds a vision transformer. Its last layer is computed for the class token only."""
    del model
    params = variables["params"]
    with graph.scope("embedding"):
        x_bld = _embedded(graph, tower, params, images_bchw)
    x_bld = layer_norm(graph, "pre_norm", params, x_bld)
    for number in range(tower.layers):
        with graph.scope(f"layers.{number}"):
            wanted = first_token(graph, x_bld) if number == tower.layers - 1 else None
            own = layer_of(params["layers"], number)
            x_bld = pre_norm_layer(graph, own, x_bld, tower.heads, tower.activation, wanted_bqd=wanted)
    class_bd = layer_norm(graph, "post_norm", params, without_axis(graph, x_bld))
    return dense(graph, "projection", params, class_bd)


def _embedded(graph: Graph, tower: VitConfig, params: Variables, images_bchw: Value) -> Value:
    side, grid = tower.patch_size, tower.image_size // tower.patch_size
    pixels = graph.op("Reshape", images_bchw, graph.ints(0, 3, grid, side, grid, side))
    pixels = graph.op("Transpose", pixels, perm=[0, 2, 4, 1, 3, 5])
    patches_blk = graph.op("Reshape", pixels, graph.ints(0, grid * grid, 3 * side * side))
    kernel_kd = params["patch"]["kernel"].transpose(2, 0, 1, 3).reshape(-1, tower.width)
    patches_bld = graph.op("MatMul", patches_blk, graph.weight("patch", kernel_kd))
    # A row of zeros before the patches becomes the class token, whose embedding is in the first row of the table.
    x_bld = graph.op("Pad", patches_bld, graph.ints(0, 1, 0, 0, 0, 0))
    table_ld = np.array(params["position_embedding"], np.float32)
    table_ld[0] += params["class_embedding"]
    return graph.op("Add", x_bld, graph.weight("position_embedding", table_ld))
