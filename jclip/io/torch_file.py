"""Reads files of `torch.save` and `torch.jit.save` without torch and without executing anything.

Three formats: the zip archive of torch 1.6 and later; the older format, several pickles followed by the raw storages;
and TorchScript archives, whose modules are read as dicts of their attributes. The formats are documented in
torch/serialization.py and torch/csrc/jit/serialization.
"""

import errno
import io
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.io._torch_names import Slice, Storage, Strided, Unreadable, finder
from jclip.io._zip import BoundedReader, Member, members
from jclip.io.inert_pickle import InertObject, load_inert
from jclip.io.tensors import BLOCK, Lazy, TensorFile, hint_for, nbytes, read_blocks, regular_size
from jclip.plain import shown

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DEEPEST, _LONGEST, _MOST = 64, 1000, 1_000_000  # nesting of dicts, characters of a name, objects in a file
_EXPANDED = 64 << 20  # bytes of a tensor whose strides repeat values
# Raised by the unpickler, zipfile and struct on damaged files.
_DAMAGE = (ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error)


def open_torch_file(file: Path) -> TensorFile:
    """Opens a checkpoint of PyTorch. Reading a damaged tensor later raises JclipError.

    Raises JclipError if the file is missing, damaged or not a checkpoint; it names a class or function that plain
    tensors do not need; or it holds a quantised or sparse tensor.
    """
    file = Path(file)
    size = regular_size(file)
    try:
        with BoundedReader(file, size) as handle:
            head = handle.read(min(size, 512))
            handle.seek(0)
            if head.startswith(b"PK\x03\x04"):
                return _open_zip(file, handle)
            if head.startswith(b"\x80"):  # a pickle of protocol 2 or later
                return _open_legacy(file, handle)
    except JclipError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a damaged offset, before the start of the file
            raise JclipError(f"{file} cannot be read ({error.strerror}): check the disk") from None
        raise _damaged(file, error) from None
    except _DAMAGE as error:
        raise _damaged(file, error) from None
    raise JclipError(f"{file} is not a PyTorch checkpoint (no zip archive, and not the older format): {hint_for(head)}")


def _damaged(file: Path, error: Exception) -> JclipError:
    reason = shown(" ".join(str(error).split()) or type(error).__name__)
    return JclipError(f"{file} is damaged or not a PyTorch checkpoint ({reason}): fetch it again")


# The zip formats.


def _open_zip(file: Path, handle: BoundedReader) -> TensorFile:
    infos = members(file, handle)
    pickles = [name for name in infos if name.endswith("/data.pkl") and name.count("/") == 1]
    if not pickles:
        raise JclipError(f"{file} is a zip archive but not a PyTorch checkpoint: it has no data.pkl")
    if len(pickles) > 1:
        raise JclipError(f"{file} holds two checkpoints, {' and '.join(map(shown, pickles[:2]))}: save each to a file")
    root = pickles[0].removesuffix("data.pkl")
    # All checksums are 0 if the archive was written without (torch.serialization.set_crc32_options).
    checked = any(info.CRC for info in infos.values())
    single = (f"{root}data.pkl", f"{root}byteorder")
    wanted = [name for name in infos if name in single or name.startswith(f"{root}data/")]
    stored = {name: Member(file, handle, infos[name], checked) for name in wanted}
    order = stored[root + "byteorder"].whole() if root + "byteorder" in stored else b"little"
    if order not in (b"little", b"big"):
        raise JclipError(f"{file}: byte order {order[:20]!a} is neither little nor big: fetch it again")
    storages: dict[str, Storage] = {}

    def storage(key: str, size: int) -> Storage:
        name = f"{root}data/{key}"
        if name not in stored or stored[name].size < size:
            raise JclipError(f"{file} is damaged: {shown(name)} is missing or too short: fetch it again")
        return storages.setdefault(key, Storage(stored[name].size, stored[name].blocks, swapped=order == b"big"))

    script = root + "constants.pkl" in infos
    pickle = io.BytesIO(stored[pickles[0]].whole())
    return _collect(file, load_inert(pickle, finder(file, script), partial(_slice, storage)), script)


# The older format.


def _open_legacy(file: Path, handle: BoundedReader) -> TensorFile:
    find, starts, storages = finder(file, script=False), dict[str, int](), dict[str, Storage]()

    def blocks(key: str, start: int, stop: int) -> Iterator[np.ndarray]:
        return read_blocks(file, starts[key] + start, starts[key] + stop)

    def storage(key: str, size: int) -> Storage:
        return storages.setdefault(key, Storage(size, partial(blocks, key)))

    def refuse(key: Any) -> Any:
        raise ValueError("its head is not that of a checkpoint")

    if load_inert(handle, find, refuse) != _MAGIC or load_inert(handle, find, refuse) != _PROTOCOL:
        raise JclipError(f"{file} is a pickle but not a PyTorch checkpoint: save it with torch.save")
    load_inert(handle, find, refuse)  # describes the machine that wrote the file; values are always little-endian
    units: dict[str, int] = {}
    saved = load_inert(handle, find, partial(_slice, storage, units=units))
    for key in load_inert(handle, find, refuse):
        (count,) = struct.unpack("<q", handle.read(8))
        if storages[key].size != count * units[key]:
            raise ValueError(f"a storage of {storages[key].size} bytes holds {count} values")
        starts[key] = handle.tell()
        if starts[key] + storages[key].size > handle.size:
            raise JclipError(f"{file} is truncated: fetch it again")
        handle.seek(starts[key] + storages[key].size)
    if missing := storages.keys() - starts.keys():
        raise ValueError(f"storage {min(missing)[:100]} is missing")
    return _collect(file, saved, script=False)


def _slice(storage: Callable[[str, int], Storage], key: Any, units: dict[str, int] | None = None) -> Slice:
    """Returns the slice that a persistent id names: ("storage", class, key, device, size), and in old files a view."""
    kind, dtype, name, _, count, *view = key
    if kind != "storage" or not isinstance(dtype, np.dtype) or type(name) is not str or not _are_counts(count):
        raise ValueError("it refers to an object that is not a storage")
    if units is not None:
        units.setdefault(name, dtype.itemsize)
    found, first = storage(name, count * dtype.itemsize), 0
    if view and view[0] is not None:
        _, first, part = view[0]
        if not _are_counts(first, part) or first + part > count:
            raise ValueError("a view is larger than its storage")
        count = part
    if (first + count) * dtype.itemsize > found.size:
        raise ValueError("two tensors disagree on the size of their storage")
    return Slice(found, dtype, first, count)


# From the saved objects to named tensors.


def _collect(file: Path, saved: Any, script: bool) -> TensorFile:
    tensors: dict[str, Lazy] = {}
    values: dict[str, Any] = {}
    if isinstance(saved, Strided | Unreadable):
        raise JclipError(f"{file} holds a single tensor without a name: save a state_dict()")
    for name, leaf in _leaves(saved, "", _Budget(), 0):
        if name in tensors or name in values:
            raise JclipError(f"{file} has two entries named {shown(name)}: rename one and save it again")
        if isinstance(leaf, Unreadable):
            raise JclipError(f"{file}: {shown(name)} {leaf.why}")
        if isinstance(leaf, Strided):
            tensors[name] = _with_name(file, shown(name), _lazy(f"{file}: {shown(name)}", leaf))
        elif isinstance(leaf, str | int | float):
            values[name] = leaf
    return TensorFile(tensors, values, script)


@dataclass
class _Budget:
    """Limit on the number of names, because dicts that contain each other give a small file endless names."""

    left: int = _MOST

    def spend(self, name: str, depth: int) -> None:
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST or len(name) > _LONGEST:
            raise ValueError("it is nested too deep or holds too many objects for a checkpoint")
        name.encode("utf-8")  # raises ValueError for half of a surrogate pair


def _leaves(node: Any, name: str, budget: _Budget, depth: int) -> Iterator[tuple[str, Any]]:
    budget.spend(name, depth)
    while isinstance(node, InertObject):
        budget.spend(name, depth)
        node = node.state
    if isinstance(node, dict):
        children: Any = node.items()
    elif isinstance(node, list | tuple):
        children = enumerate(node)
    else:
        yield name, node
        return
    for key, child in children:
        yield from _leaves(child, f"{name}.{key}" if name else str(key), budget, depth + 1)


def _lazy(what: str, tensor: Strided) -> Lazy:
    """Returns a tensor after checking that its shape and strides stay inside its storage."""
    part, dtype, offset, size, stride = tensor.slice, tensor.dtype, tensor.offset, tensor.size, tensor.stride
    if not isinstance(dtype, np.dtype) or not isinstance(size, tuple | list) or not isinstance(stride, tuple | list):
        raise JclipError(f"{what} is damaged: fetch the file again")
    shape, step = tuple(size), dtype.itemsize
    if not _are_counts(offset, *shape, *stride) or len(stride) != len(shape):
        raise JclipError(f"{what} has a shape or strides that are not whole numbers >= 0: fetch the file again")
    if 0 in shape:
        nbytes(shape, dtype)
        return Lazy(shape, dtype, lambda: iter(()))
    # Offsets count values of the tensor's dtype, which may differ from the storage's (float8 is stored as bytes).
    start = part.first * part.dtype.itemsize + offset * step
    stop = start + (1 + sum((length - 1) * jump for length, jump in zip(shape, stride, strict=True))) * step
    end = (part.first + part.count) * part.dtype.itemsize
    if stop > end or nbytes(shape, dtype) > max(part.storage.size, _EXPANDED):
        raise JclipError(f"{what} reaches beyond its storage: fetch the file again")
    if _contiguous(shape, stride):
        return Lazy(shape, dtype, partial(_contiguous_parts, part.storage, dtype, start, stop))
    return Lazy(shape, dtype, partial(_strided_parts, part.storage, dtype, start, stop, shape, tuple(stride)))


def _with_name(file: Path, name: str, tensor: Lazy) -> Lazy:
    """Adds a tensor's name to the errors of reading it, which name only its storage's number."""

    def parts() -> Iterator[np.ndarray]:
        try:
            yield from tensor.parts()
        except JclipError as error:
            raise JclipError(f"{file}: {name}: {str(error).removeprefix(f'{file}: ')}") from None

    return replace(tensor, parts=parts)


def _are_counts(*numbers: Any) -> bool:
    """Returns True if all are whole numbers from 0 to 2^63 - 1."""
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _contiguous(shape: tuple[int, ...], stride: Any) -> bool:
    inner = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return all(length == 1 or jump == wanted for length, jump, wanted in zip(shape, stride, inner, strict=True))


def _contiguous_parts(storage: Storage, dtype: np.dtype, start: int, stop: int) -> Iterator[np.ndarray]:
    for block in storage.blocks(start, stop):
        yield block.view(dtype).byteswap() if storage.swapped else block.view(dtype)


def _strided_parts(
    storage: Storage, dtype: np.dtype, start: int, stop: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Yields a transposed or repeated tensor; holds the part of the storage that it covers in memory."""
    parts = partial(_contiguous_parts, storage, dtype, start, stop)
    span = Lazy(((stop - start) // dtype.itemsize,), dtype, parts).read()
    view = np.lib.stride_tricks.as_strided(span, shape, [jump * dtype.itemsize for jump in stride])
    for first in range(0, view.size, BLOCK // dtype.itemsize):
        yield view.flat[first : first + BLOCK // dtype.itemsize]
