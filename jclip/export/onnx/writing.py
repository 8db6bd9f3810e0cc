"""Writes the files of an ONNX export, and compares them with the model.

Axes: b batch, h height, w width, c channels, l tokens, d features.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jclip.bundle import Bundle
from jclip.encoding import text_encoder
from jclip.errors import JclipError
from jclip.export.beside import write_beside
from jclip.export.formats import ExportOptions, Say
from jclip.export.onnx.graph import EXTERNAL_BYTES, OPSET, Graph, Value
from jclip.export.onnx.int8 import quantise
from jclip.export.onnx.layers import l2_normalised
from jclip.export.onnx.preprocessing import normalised, resized
from jclip.export.onnx.readme import write_readme
from jclip.export.onnx.towers import Writer, writer_of
from jclip.export.onnx_model import Tower, file_name, pixel_values
from jclip.export.record import record_of
from jclip.inference import Model

RESIZING_TOLERANCE = 1e-3
"""Maximum difference of a feature of an image that the graph resizes: rounding to 8 bits differs in few pixels."""

TOLERANCE = 1e-5
"""Maximum difference of a feature between the model and the written graph, in float32."""


def write_files(
    model: Model, folder: Path, options: ExportOptions, say: Say, *, external_bytes: int = EXTERNAL_BYTES
) -> dict[str, Any]:
    """Writes one graph for each tower, and the files beside them; returns the entries of the record.

    Raises JclipError if a tower has no writer, a graph gives other features than the model, or int8 fails its gate.
    """
    bundle = model.bundle
    towers = bundle.config.towers
    writers = {name: writer_of(tower, name) for name, tower in towers.items()}
    if options.with_preprocessing and bundle.preprocessing is None:
        raise JclipError("--with-preprocessing: this model has no image tower: omit it")
    described, checked, batches = {}, {}, {}
    for name, writer in writers.items():
        say(f"writing the {name} tower")
        graph, described[name] = _SIDES[name](bundle, writer, options.with_preprocessing)
        described[name]["files"] = graph.save(
            folder / file_name(name), {"jclip_identity": model.identity}, external_bytes=external_bytes
        )
        del graph
        say(f"comparing the {name} tower with the model")
        checked[name], batches[name] = _CHECKS[name](model, folder / file_name(name))
    say("writing the tokenizer and the preprocessing")
    write_beside(bundle, folder)
    own = {"opset": OPSET, "towers": described, "largest_difference": checked}
    if options.with_preprocessing:
        own["resized_difference"] = _check_resizing(model, folder / file_name("image"))
    if options.int8:
        record = record_of(model, "onnx", own)
        own["int8"] = quantise(folder, record, batches, options, say, external_bytes=external_bytes)
    write_readme(folder, record_of(model, "onnx", own))
    return own


def _image_graph(bundle: Bundle, writer: Writer, with_preprocessing: bool) -> tuple[Graph, dict[str, Any]]:
    preprocessing = bundle.preprocessing
    assert preprocessing is not None  # the model has an image tower
    size = preprocessing.size
    if with_preprocessing:
        takes = _Input("images", np.uint8, ("batch", "height", "width", 3))
    else:
        takes = _Input("pixel_values", np.float32, ("batch", 3, size, size))
    graph = Graph()
    images = graph.input(*takes)
    if with_preprocessing:
        images = normalised(graph, preprocessing, resized(graph, preprocessing, images))
    return graph, _finish(graph, "image", bundle, writer, images, takes)


def _text_graph(bundle: Bundle, writer: Writer, with_preprocessing: bool) -> tuple[Graph, dict[str, Any]]:
    del with_preprocessing
    graph, takes = Graph(), _Input("input_ids", np.int64, ("batch", "length"))
    return graph, _finish(graph, "text", bundle, writer, graph.input(*takes), takes)


class _Input(NamedTuple):
    name: str
    dtype: type
    shape: tuple[int | str, ...]


def _finish(graph: Graph, name: str, bundle: Bundle, writer: Writer, inputs: Value, takes: _Input) -> dict[str, Any]:
    """Adds the tower and its output; returns the names, dtypes and shapes of input and output."""
    variables = {"params": bundle.params[name], "batch_stats": bundle.stats.get(name, {})}
    features_bd = l2_normalised(graph, writer(graph, bundle.config.towers[name], variables, inputs, bundle.config))
    output, shape = f"{name}_embeds", ("batch", bundle.config.embed_dim)
    graph.output(output, features_bd, np.float32, shape)
    return {
        "input": {"name": takes.name, "dtype": np.dtype(takes.dtype).name, "shape": list(takes.shape)},
        "output": {"name": output, "dtype": "float32", "shape": list(shape)},
    }


_SIDES: dict[str, Callable[[Bundle, Writer, bool], tuple[Graph, dict[str, Any]]]] = {
    "image": _image_graph,
    "text": _text_graph,
}


def _check_images(model: Model, file: Path) -> tuple[float, np.ndarray]:
    """Returns the largest difference from the model on images, in batches of 3, 2 and 1; and the batch of 3."""
    preprocessing, tower = model.bundle.preprocessing, Tower(file)
    assert preprocessing is not None
    size, draw = preprocessing.size, np.random.default_rng(0)
    images_bhwc = draw.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    images_bhwc[1:] = images_bhwc[1:].mean(axis=(1, 2), keepdims=True) / 2 + images_bhwc[1:] / 4
    wanted_bd = model.encode_image(images_bhwc)
    batch = images_bhwc if tower.reads_uint8 else pixel_values(preprocessing, images_bhwc)
    return _largest(file, wanted_bd, tower(batch), np.concatenate([tower(batch[:2]), tower(batch[2:])])), batch


def _check_resizing(model: Model, file: Path) -> float:
    """Returns the difference of the features of an image that the graph resizes. Raises JclipError if it is large."""
    preprocessing = model.bundle.preprocessing
    assert preprocessing is not None
    size, draw = preprocessing.size, np.random.default_rng(0)
    blocks = draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = blocks.repeat(size // 4, axis=0).repeat(size // 3, axis=1)
    return _largest(file, model.encode_image([image]), Tower(file)(image[None]), tolerance=RESIZING_TOLERANCE)


def _check_texts(model: Model, file: Path) -> tuple[float, np.ndarray]:
    """Returns the largest difference from the model on a batch of random ids, padded and one by one; and the batch."""
    bundle, tower = model.bundle, Tower(file)
    longest, draw = bundle.context_length, np.random.default_rng(0)
    begin, *_, end = bundle.tokenizer.encode([""], longest)[0]
    lengths = sorted({3, (longest + 3) // 2, longest})
    pad_id, size = bundle.tokenizer.pad_id, bundle.tokenizer.vocab_size
    ids_bl = np.full((len(lengths), longest), pad_id, np.int32)
    for row, length in zip(ids_bl, lengths, strict=True):
        row[:length] = [begin, *draw.integers(0, size, length - 2), end]
    wanted_bd = np.asarray(text_encoder(bundle.config)(model.variables, ids_bl))
    ids_bl = ids_bl.astype(np.int64)
    alone = [tower(row[None, :length]) for row, length in zip(ids_bl, lengths, strict=True)]
    return _largest(file, wanted_bd, tower(ids_bl), np.concatenate(alone)), ids_bl


_CHECKS: dict[str, Callable[[Model, Path], tuple[float, np.ndarray]]] = {"image": _check_images, "text": _check_texts}


def _largest(file: Path, wanted_bd: np.ndarray, *found: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """Returns the largest difference. Raises JclipError if it is above the tolerance or not a number."""
    largest = float(max(np.abs(wanted_bd - each_bd).max() for each_bd in found))
    if not largest <= tolerance:
        raise JclipError(
            f"{file.name} gives features that differ from the model's by {largest:.1e}, more than {tolerance:g}: "
            "nothing was exported; please report it, with the bundle's config.json"
        )
    return largest
