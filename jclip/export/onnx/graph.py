"""Builds an ONNX graph node by node, and writes it with its weights inside or beside it.

    graph = Graph()
    x = graph.input("x", np.float32, ("batch", 3))
    graph.output("y", graph.op("Relu", x), np.float32, ("batch", 3))
    graph.save(Path("relu.onnx"))

A value is the name of a node's output. Operators are those of ONNX itself, so that any runtime reads the graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""Version of ONNX's operators: the first with Gelu. onnxruntime reads it since 1.17, OpenVINO since 2024."""

_IR_VERSION = 9  # the file format's own version that belongs to the opset
EXTERNAL_BYTES = 1_500_000_000
"""Weights of more bytes are written into a file beside the graph, because a protobuf file ends at 2 GB."""

_ALIGNMENT = 4096  # of a tensor in the file of weights, so that it can be mapped into memory
_SMALL = 1024  # bytes: smaller tensors stay in the graph, where tools look for shapes

Value = str
Shape = Sequence[int | str]


class Graph:
    """Graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._counts: dict[str, int] = {}
        self._scope: tuple[str, ...] = ()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts a name before those of the nodes and weights that the block adds: "layers.0/attention/…"."""
        self._scope = (*self._scope, name)
        try:
            yield
        finally:
            self._scope = self._scope[:-1]

    def input(self, name: str, dtype: DTypeLike, shape: Shape) -> Value:
        """Declares an input. Named dimensions are free."""
        self._inputs.append(helper.make_tensor_value_info(name, _type(dtype), shape))
        return name

    def output(self, name: str, value: Value, dtype: DTypeLike, shape: Shape) -> None:
        """Declares a value as an output, under a name."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}/Identity"))
        self._outputs.append(helper.make_tensor_value_info(name, _type(dtype), shape))

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Adds a node with one output, and returns that. "" is an input that is not given."""
        name = self._unique(kind)
        self._nodes.append(helper.make_node(kind, inputs, [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def constant(self, value: Any, dtype: DTypeLike) -> Value:
        """Returns a constant: a number or a small array. Equal constants are stored once."""
        array = np.array(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constants/{len(self._constants)}"
            self._weights[name] = array
            self._constants[key] = name
        return self._constants[key]

    def ints(self, *values: int) -> Value:
        """Returns a constant vector of int64, such as a shape or axes."""
        return self.constant(values, np.int64)

    def weight(self, name: str, array: np.ndarray) -> Value:
        """Adds a weight in float32."""
        name = self._unique(name)
        self._weights[name] = np.asarray(array, np.float32)
        return name

    def model(self, name: str, metadata: Mapping[str, str] = {}) -> onnx.ModelProto:
        """Returns the graph with its weights inside."""
        return self._model(name, [_tensor(weight, array) for weight, array in self._weights.items()], metadata)

    def save(self, file: Path, metadata: Mapping[str, str] = {}, *, external_bytes: int = EXTERNAL_BYTES) -> list[str]:
        """Writes the graph and returns the names of its files.

        If the weights have more than `external_bytes` bytes, those that are not small are in FILE.data beside it.
        Raises OSError if the disk is full, and onnx's ValidationError if a node is not valid.
        """
        if sum(array.nbytes for array in self._weights.values()) > external_bytes:
            data = data_file(file)
            with data.open("wb") as stream:
                tensors = [_beside(name, array, stream) for name, array in self._weights.items()]
            model, files = self._model(file.stem, tensors, metadata), [file.name, data.name]
        else:
            model, files = self.model(file.stem, metadata), [file.name]
        file.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(file))
        return files

    def _model(self, name: str, tensors: list[TensorProto], metadata: Mapping[str, str]) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, tensors)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="jclip")
        helper.set_model_props(model, dict(metadata))
        return model

    def _unique(self, name: str) -> str:
        full = "/".join((*self._scope, name))
        count = self._counts[full] = self._counts.get(full, 0) + 1
        return full if count == 1 else f"{full}_{count}"


def data_file(file: Path) -> Path:
    """Returns the place of the weights beside a graph's file, if they are not inside."""
    return file.with_name(f"{file.name}.data")


def _type(dtype: DTypeLike) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _tensor(name: str, array: np.ndarray) -> TensorProto:
    # Not np.ascontiguousarray, which turns a scalar into a vector of one; from_array copies anyway.
    return numpy_helper.from_array(np.asarray(array), name)


def _beside(name: str, array: np.ndarray, stream: Any) -> TensorProto:
    if array.nbytes <= _SMALL:
        return _tensor(name, array)
    stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
    begin = stream.tell()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    stream.write(np.ascontiguousarray(little).data)
    tensor = TensorProto(name=name, dims=array.shape, data_type=_type(array.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", Path(stream.name).name), ("offset", begin), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
