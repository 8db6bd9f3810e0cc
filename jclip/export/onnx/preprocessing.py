"""Preprocessing as nodes of a graph: any uint8 images to the image tower's input, as Pillow resizes them.

Pillow resizes in two passes, and rounds to 8 bits after each. Pillow 13 begins with the height if that shrinks by more
than twice as many pixels as the width (measured); earlier versions always begin with the width. The order changes
values by a few steps of 255 in images with noise.

Axes: b batch, h height, w width, c channels.
"""

import numpy as np

from jclip.export.onnx.graph import Graph, Value
from jclip.images.preprocess import Preprocessing


def resized(graph: Graph, preprocessing: Preprocessing, images_bhwc: Value) -> Value:
    """Adds resizing and cropping; returns uint8 (b, 3, size, size) of RGB images, uint8 (b, h, w, 3)."""
    size = graph.ints(preprocessing.size)
    with graph.scope("resize"):
        images_bchw = graph.op("Transpose", images_bhwc, perm=[0, 3, 1, 2])
        shape = graph.op("Shape", images_bchw)
        height, width = (graph.op("Slice", shape, graph.ints(at), graph.ints(at + 1)) for at in (2, 3))
        if preprocessing.resize == "squash":
            return _resized(graph, images_bchw, (height, width), (size, size))
        shorter = graph.op("Min", height, width)
        new = [graph.op("Div", graph.op("Mul", side, size), shorter) for side in (height, width)]
        images_bchw = _resized(graph, images_bchw, (height, width), (new[0], new[1]))
    with graph.scope("crop"):
        begins = graph.op("Concat", *(_half(graph, graph.op("Sub", side, size)) for side in new), axis=0)
        ends = graph.op("Add", begins, size)
        return graph.op("Slice", images_bchw, begins, ends, graph.ints(2, 3))


def normalised(graph: Graph, preprocessing: Preprocessing, images_bchw: Value) -> Value:
    """Adds normalisation: uint8 (b, 3, h, w) to float32."""
    with graph.scope("normalise"):
        mean, std = (np.array(each, np.float32).reshape(3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
        values = graph.op("Div", graph.op("Cast", images_bchw, to=_FLOAT), graph.constant(255, np.float32))
        values = graph.op("Sub", values, graph.constant(mean, np.float32))
        return graph.op("Div", values, graph.constant(std, np.float32))


_FLOAT = 1  # TensorProto.FLOAT


def _resized(graph: Graph, images_bchw: Value, old: tuple[Value, Value], new: tuple[Value, Value]) -> Value:
    """Adds three passes, of which the first or the last does nothing: height, width, height."""
    (height, width), (new_height, new_width) = old, new
    zero, two = graph.ints(0), graph.ints(2)
    narrower = graph.op("Max", graph.op("Sub", width, new_width), zero)
    height_first = graph.op("Greater", graph.op("Sub", height, new_height), graph.op("Mul", narrower, two))
    passes = ((graph.op("Where", height_first, new_height, height), 2), (new_width, 3), (new_height, 2))
    for side, axis in passes:
        images_bchw = graph.op(
            "Resize",
            images_bchw,
            "",
            "",
            side,
            axes=[axis],
            mode="cubic",
            cubic_coeff_a=-0.5,
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        )
    return images_bchw


def _half(graph: Graph, border: Value) -> Value:
    """Returns half of a border of pixels >= 0, rounded to even as Python does: 0.5 becomes 0, and 1.5 becomes 2."""
    two = graph.ints(2)
    half = graph.op("Div", border, two)
    odd = graph.op("Mul", graph.op("Mod", border, two), graph.op("Mod", half, two))
    return graph.op("Add", half, odd)
