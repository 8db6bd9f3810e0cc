"""The names that a PyTorch checkpoint may refer to, and the inert thing that stands for each. Nothing is imported."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jclip.errors import JclipError
from jclip.io.inert_pickle import Bag, Known, checked_key
from jclip.io.tensors import shown

_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(kind)
    for name, kind in {
        "float64": np.float64,
        "float32": np.float32,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "complex128": np.complex128,
        "complex64": np.complex64,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint8": np.uint8,
        "uint16": np.uint16,
        "uint32": np.uint32,
        "uint64": np.uint64,
        "bool": np.bool_,
    }.items()
}
# The class of a storage says the dtype; the quantised ones are never asked for it (their tensors are `Unreadable`), but
# the older format needs their size to find the storages behind.
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
    """A stretch of bytes in the file.

    Attributes:
      size: in bytes.
      blocks: the bytes from one place up to another, piece by piece; a multiple of 16 bytes each, but for the last.
      swapped: whether its values have the other byte order.
    """

    size: int
    blocks: Callable[[int, int], Iterator[np.ndarray]]
    swapped: bool = False


@dataclass(frozen=True)
class Slice:
    """A storage as a tensor sees it: as values of a dtype, `count` of them from the `first` on."""

    storage: Storage
    dtype: np.dtype
    first: int
    count: int


@dataclass(frozen=True)
class Strided:
    """A tensor as it is written down; `offset` and `stride` count values. Nothing has been checked yet."""

    slice: Any
    dtype: Any
    offset: Any
    size: Any
    stride: Any


@dataclass(frozen=True)
class Unreadable:
    """A tensor, or the dtype of one, that no plain array can hold: and why."""

    why: str


class NumpyDtype(Bag):
    """The numpy dtype of a scalar: a code, and (in its state) a byte order."""

    def __init__(self, code: Any, *_: Any):
        super().__init__()
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def scalar(self, raw: bytes | str) -> bool | int | float:
        """The value of a scalar's bytes, as a plain number."""
        if not isinstance(self, NumpyDtype) or not re.fullmatch("b1|[iuf][1248]", self.code):
            raise ValueError("it holds a numpy scalar that is no number")
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        order: Any = self.state[1] if self.state else "="
        (value,) = np.frombuffer(raw, np.dtype(self.code).newbyteorder(order))
        return value.item()


def finder(file: Path, script: bool) -> Callable[[str], Any]:
    """What stands for a name in a file.

    Args:
      file: for the message.
      script: whether it is TorchScript, whose classes lie in the archive and are called "__torch__.…".

    Returns:
      A function for `load`: name -> stand-in. It raises a JclipError for every name that is not on the list.
    """

    def find(name: str) -> Any:
        if name in _KNOWN:
            return _KNOWN[name]
        if script and name.startswith("__torch__."):
            return Known(lambda *_: Bag())
        raise JclipError(
            f"{file} refers to {shown(name)}: it would run code, refusing to read it; "
            "if you trust the file, load it by torch.load(…, weights_only=False), and save its model.state_dict()"
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
        return Unreadable("is a conjugated or negated view: resolve it with torch")
    return dtype if isinstance(dtype, Unreadable) else Strided(part, dtype, offset, size, stride)


def _of_type(function: Any, kind: Any, arguments: tuple[Any, ...], state: Any) -> Any:
    """A tensor with attributes of its own, which nobody asks for."""
    if function not in (_KNOWN[f"torch._utils._rebuild_{name}"] for name in ("tensor_v2", "tensor_v3", "parameter")):
        raise ValueError("it makes a tensor out of something else")
    return function.make(*arguments)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return {checked_key(key): value for key, value in pairs}


def _first(first: Any, *_: Any) -> Any:
    return first


def _bytes(text: str, how: str = "latin1") -> bytes:
    """How protocol 2 writes bytes. Other codecs are modules, and could do anything."""
    if type(text) is not str or how not in ("latin1", "latin-1"):
        raise ValueError("it encodes text in an unusual way")
    return text.encode("latin-1")


def _set(items: Any = ()) -> set[Any]:
    return {checked_key(item) for item in items}


def _unreadable(why: str) -> Known:
    return Known(lambda *_: Unreadable(why))


_KNOWN: dict[str, Any] = {
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    **{f"{room}.{name}": _DTYPES[dtype] for name, dtype in _STORAGES.items() for room in ("torch", "torch.cuda")},
    "torch.storage.UntypedStorage": _DTYPES["uint8"],
    "torch.complex32": Unreadable("is complex32, which numpy lacks: save it as another dtype"),
    "torch._utils._rebuild_tensor": Known(_tensor),
    "torch._utils._rebuild_tensor_v2": Known(_tensor),
    "torch._utils._rebuild_tensor_v3": Known(_tensor_of),
    "torch._utils._rebuild_parameter": Known(_first),
    "torch._utils._rebuild_parameter_with_state": Known(_first),
    "torch._tensor._rebuild_from_type_v2": Known(_of_type),
    "torch._utils._rebuild_qtensor": _unreadable("is quantised: dequantise it with torch"),
    "torch._utils._rebuild_sparse_tensor": _unreadable("is sparse: make it dense with torch (to_dense)"),
    "torch._utils._rebuild_nested_tensor": _unreadable("is a nested tensor: make it a plain one with torch"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("is a meta tensor, which has no values"),
    "torch.serialization._get_layout": Known(_first),
    **{f"torch.per_{name}_affine": name for name in ("tensor", "channel")},  # how a quantised tensor is
    "torch.nn.parameter.Parameter": Known(_first),
    "torch.nn.parameter.Buffer": Known(_first),
    "torch.Tensor": Known(_first),
    "torch.Size": Known(tuple),
    "torch.device": Known(lambda kind="", *_: kind),
    # TorchScript's: lists of one type, and values that say their type.
    **{
        f"torch.jit._pickle.{name}": Known(_first) for name in ("restore_type_tag", "build_intlist", "build_doublelist")
    },
    **{f"torch.jit._pickle.{name}": Known(_first) for name in ("build_tensorlist", "build_boollist")},
    "collections.OrderedDict": Known(_ordered),
    "argparse.Namespace": Known(lambda *_: Bag()),
    "builtins.set": Known(_set),
    "__builtin__.set": Known(_set),
    "_codecs.encode": Known(_bytes),
    "numpy.dtype": Known(NumpyDtype),
    "numpy.ndarray": Known(lambda *_: Bag()),
    **{f"numpy.{core}.multiarray.scalar": Known(NumpyDtype.scalar) for core in ("core", "_core")},
    # An array, of a random generator perhaps: no tensor, so that it stays closed.
    **{f"numpy.{core}.multiarray._reconstruct": Known(lambda *_: Bag()) for core in ("core", "_core")},
}
