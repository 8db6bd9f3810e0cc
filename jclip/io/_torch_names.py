"""Names that a PyTorch checkpoint may refer to, each with an inert replacement. Nothing is imported."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # teaches numpy bfloat16 and float8
import numpy as np

from jclip.errors import JclipError
from jclip.io.inert_pickle import Callee, InertObject, checked_key
from jclip.plain import shown

_NAMES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex128", "complex64", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
_DTYPES: dict[str, np.dtype] = {name: np.dtype(name) for name in _NAMES}  # torch's names are numpy's and ml_dtypes'
# Dtypes of the storage classes. Tensors in quantised storages are `Unreadable`, but the older format needs the size of
# these storages to find the next one.
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QInt32Storage": "int32",
    "QUInt8Storage": "uint8",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}


@dataclass
class Storage:
    """Bytes of one or more tensors in a file.

    Attributes:
      size: number of bytes.
      blocks: yields the bytes between two offsets; every block except the last is a multiple of 16 bytes.
      swapped: True for big-endian values.
    """

    size: int
    blocks: Callable[[int, int], Iterator[np.ndarray]]
    swapped: bool = False


@dataclass(frozen=True)
class Slice:
    """View of a storage: `count` values of a dtype, from index `first`."""

    storage: Storage
    dtype: np.dtype
    first: int
    count: int


@dataclass(frozen=True)
class Strided:
    """Tensor as the pickle describes it, unchecked; `offset` and `stride` count values."""

    slice: Any
    dtype: Any
    offset: Any
    size: Any
    stride: Any


@dataclass(frozen=True)
class Unreadable:
    """Tensor or dtype that no plain array can hold, with the reason."""

    why: str


class NumpyDtype(InertObject):
    """Numpy dtype: its code, and its byte order in `state`."""

    def __init__(self, code: Any, *_: Any):
        super().__init__()
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def scalar(self, raw: bytes | str) -> bool | int | float:
        """Returns the number that a numpy scalar's bytes hold."""
        if not isinstance(self, NumpyDtype) or not re.fullmatch("b1|[iuf][1248]", self.code):
            raise ValueError("it holds a numpy scalar that is not a number")
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        order: Any = self.state[1] if self.state else "="
        (value,) = np.frombuffer(raw, np.dtype(self.code).newbyteorder(order))
        return value.item()


def finder(file: Path, script: bool) -> Callable[[str], Any]:
    """Returns the function that gives `load_inert` the replacement of each name; it raises JclipError for other names.

    `script` is True for TorchScript, whose own classes are named "__torch__.…".
    """

    def find(name: str) -> Any:
        if name in _KNOWN:
            return _KNOWN[name]
        if script and name.startswith("__torch__."):
            return Callee(lambda *_: InertObject())
        raise JclipError(
            f"{file} refers to {shown(name)}, which would run code: jclip does not read it. If you trust the file, "
            "load it with torch.load(…, weights_only=False) and save its model.state_dict()"
        )

    return find


def _tensor(
    part: Any, offset: Any, size: Any, stride: Any, grad: Any = False, hooks: Any = None, metadata: Any = None
) -> Strided | Unreadable:
    return _tensor_of(part, offset, size, stride, grad, hooks, getattr(part, "dtype", None), metadata)


def _tensor_of(
    part: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Strided | Unreadable:
    if not isinstance(part, Slice):
        raise ValueError("it holds a tensor without a storage")
    if metadata:
        return Unreadable("is a conjugated or negated view: save it after torch.resolve_conj and torch.resolve_neg")
    return dtype if isinstance(dtype, Unreadable) else Strided(part, dtype, offset, size, stride)


def _of_type(function: Any, kind: Any, arguments: tuple[Any, ...], state: Any) -> Any:
    """Returns a tensor without the Python attributes that were saved with it."""
    if function not in (_KNOWN[f"torch._utils._rebuild_{name}"] for name in ("tensor_v2", "tensor_v3", "parameter")):
        raise ValueError("it builds a tensor with an unknown function")
    return function.make(*arguments)


def _first(first: Any, *_: Any) -> Any:
    return first


def _bytes(text: str, how: str = "latin1") -> bytes:
    """Returns the bytes that pickle protocol 2 stores as latin-1 text. Refuses other codecs, because they are code."""
    if type(text) is not str or how not in ("latin1", "latin-1"):
        raise ValueError("it encodes text with another codec than latin-1")
    return text.encode("latin-1")


def _unreadable(why: str) -> Callee:
    return Callee(lambda *_: Unreadable(why))


_KNOWN: dict[str, Any] = {
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    **{f"{room}.{name}": _DTYPES[dtype] for name, dtype in _STORAGES.items() for room in ("torch", "torch.cuda")},
    "torch.storage.UntypedStorage": _DTYPES["uint8"],
    "torch.complex32": Unreadable("is complex32, which numpy lacks: save it as another dtype"),
    "torch._utils._rebuild_tensor": Callee(_tensor),
    "torch._utils._rebuild_tensor_v2": Callee(_tensor),
    "torch._utils._rebuild_tensor_v3": Callee(_tensor_of),
    "torch._utils._rebuild_parameter": Callee(_first),
    "torch._utils._rebuild_parameter_with_state": Callee(_first),
    "torch._tensor._rebuild_from_type_v2": Callee(_of_type),
    "torch._utils._rebuild_qtensor": _unreadable("is quantised: dequantise it with torch"),
    "torch._utils._rebuild_sparse_tensor": _unreadable("is sparse: make it dense with torch (to_dense)"),
    "torch._utils._rebuild_nested_tensor": _unreadable("is a nested tensor: make it a plain one with torch"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("is a meta tensor, which has no values"),
    "torch.serialization._get_layout": Callee(_first),
    **{f"torch.per_{name}_affine": name for name in ("tensor", "channel")},  # quantisation schemes
    "torch.nn.parameter.Parameter": Callee(_first),
    "torch.nn.parameter.Buffer": Callee(_first),
    "torch.Tensor": Callee(_first),
    "torch.Size": Callee(tuple),
    "torch.device": Callee(lambda kind="", *_: kind),
    # TorchScript: typed lists, and values tagged with their type.
    "torch.jit._pickle.restore_type_tag": Callee(_first),
    **{f"torch.jit._pickle.build_{kind}list": Callee(_first) for kind in ("int", "double", "tensor", "bool")},
    "collections.OrderedDict": Callee(lambda pairs=(): {checked_key(key): value for key, value in pairs}),
    "argparse.Namespace": Callee(lambda *_: InertObject()),
    **{f"{room}.set": Callee(lambda items=(): set(map(checked_key, items))) for room in ("builtins", "__builtin__")},
    "_codecs.encode": Callee(_bytes),
    "numpy.dtype": Callee(NumpyDtype),
    "numpy.ndarray": Callee(lambda *_: InertObject()),
    **{f"numpy.{core}.multiarray.scalar": Callee(NumpyDtype.scalar) for core in ("core", "_core")},
    # Arrays, such as a random generator's state. They are not tensors and stay unread.
    **{f"numpy.{core}.multiarray._reconstruct": Callee(lambda *_: InertObject()) for core in ("core", "_core")},
}
