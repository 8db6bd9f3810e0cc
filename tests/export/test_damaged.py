"""ONNX exports that are damaged or lead elsewhere are refused."""

import json
import shutil

import numpy as np
import onnx
import pytest

import jclip
from jclip.errors import JclipError
from jclip.export.formats import ExportOptions
from jclip.export.onnx.graph import Graph
from jclip.export.onnx.writing import write_files
from tests.export.small_models import TEXTS, quiet, write


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def lead_elsewhere(file):
    """Makes a weight of a graph come from another place."""
    graph = onnx.load(file)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    file.write_bytes(graph.SerializeToString())


def unknown_operator(file):
    graph = Graph()
    graph.output("y", graph.op("Launch", graph.input("x", np.int64, ("b", "l"))), np.float32, ("b", 24))
    with pytest.raises(onnx.checker.ValidationError):
        graph.save(file)  # written, and then found to be wrong


def two_inputs(file):
    graph = Graph()
    x, y = (graph.input(name, np.int64, ("b", "l")) for name in "xy")
    graph.output("z", graph.op("Add", x, y), np.int64, ("b", "l"))
    graph.save(file)


def no_features(file):
    graph = Graph()
    ids = graph.input("input_ids", np.int64, ("b", "l"))
    graph.output("z", graph.op("Unsqueeze", graph.op("Cast", ids, to=1), graph.ints(1)), np.float32, ("b", 1, "l"))
    graph.save(file)


def other_width(file):
    graph = Graph()
    ids = graph.input("input_ids", np.int64, ("b", "l"))
    row = graph.op("ReduceSum", graph.op("Cast", ids, to=1), graph.ints(1), keepdims=1)
    graph.output("z", graph.op("Expand", row, graph.ints(1, 23)), np.float32, ("b", 23))
    graph.save(file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "text.onnx is missing: export the model again"),
        (lambda file: file.write_bytes(file.read_bytes()[:5000]), "text.onnx cannot be run as ONNX"),
        (lambda file: file.write_bytes(b"hello"), "text.onnx cannot be run as ONNX"),
        (lambda file: file.write_bytes(b""), "text.onnx cannot be run as ONNX"),
        (lead_elsewhere, r"it names weights in another folder, \.\./secret"),
        (unknown_operator, "text.onnx cannot be run as ONNX"),
        (two_inputs, "it has more than one input or output"),
        (other_width, r"it gives float32 \(4, 23\), which are not features"),
        (no_features, r"it gives float32 \(4, 1, \d+\), which are not features"),
    ],
)
def test_damaged_graphs_are_refused(copy, spoil, message):
    (copy.parent / "secret").write_bytes(bytes(1 << 20))
    spoil(copy / "text.onnx")
    with pytest.raises(JclipError, match=message) as caught:
        jclip.load(copy).encode_text(TEXTS)
    assert "\n" not in str(caught.value)


def test_a_link_to_weights_elsewhere_is_refused(model, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    write_files(model, folder, ExportOptions(), quiet, external_bytes=1000)
    data = folder / "image.onnx.data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    write(model, tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "export.json", folder)
    with pytest.raises(JclipError, match=r"it names weights in another folder, image\.onnx\.data"):
        jclip.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("model"), "has no model: export the model again"),
        (lambda record: record.update(version=9), "has version 9, this jclip reads 1"),
        (lambda record: record.update(format="stablehlo", stablehlo={}), "is an export as stablehlo"),
        (lambda record: record.pop("onnx"), "has no onnx"),
        (lambda record: record["source"].pop("identity"), "has no identity"),
        (lambda record: record.update(context_length=99), "context_length is 99, but the text tower has"),
        (lambda record: record.update(embed_dim="x"), "embed_dim is 'x', but must be a whole number"),
        (lambda record: record.update(embed_dim=-4), "has embed_dim -4, but its model has 24: export it again"),
        (lambda record: record.update(similarity_scale=float("inf")), "export.json"),
    ],
)
def test_damaged_records_are_refused(copy, change, message):
    record = json.loads((copy / "export.json").read_text())
    change(record)
    (copy / "export.json").write_text(json.dumps(record))
    with pytest.raises(JclipError, match=message):
        jclip.load(copy)
