"""Reads what `torch.save` and `torch.jit.save` wrote, without torch, and without running anything that a file asks for.

Three formats: the zip archive of torch 1.6 and later; the older one, a few pickles and then the raw storages; and
TorchScript archives, whose modules are read as the attributes that they hold. torch/serialization.py describes the
first two, torch/csrc/jit/serialization the third.
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
from jclip.io._zip import Careful, Member, members
from jclip.io.inert_pickle import Bag, load
from jclip.io.tensors import BLOCK, Lazy, instead, nbytes, read_blocks, regular_size, shown

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DEEPEST, _LONGEST, _MOST = 64, 1000, 1_000_000  # nested dicts, characters of a name, things in a file
_EXPANDED = 64 << 20  # bytes that a tensor may repeat a storage to
# What damage makes the machine, zipfile and struct raise.
_DAMAGE = (ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error)


@dataclass(frozen=True)
class TorchFile:
    """What a file of PyTorch holds.

    Attributes:
      tensors: by their names, which join the keys of nested dicts, the places in lists and the attributes of
        TorchScript's modules with '.': "state_dict.module.visual.conv1.weight". No value is read yet. Reading one
        checks the CRC-32 of its storage first, where the format has one.
      values: the numbers, strings and truth values beside them, by the same kind of name.
      torchscript: whether it is an archive of `torch.jit.save`.
    """

    tensors: dict[str, Lazy]
    values: dict[str, Any]
    torchscript: bool


def open_torch_file(file: Path) -> TorchFile:
    """Opens a checkpoint.

    Raises:
      JclipError: the file is missing, truncated, damaged or no checkpoint; it refers to a class or function that a
        checkpoint of tensors does not need, which is named; or it holds a tensor that is quantised or sparse, which is
        named too. The tensors of the result raise it when they are read and found damaged.
    """
    file = Path(file)
    size = regular_size(file)
    try:
        with Careful(file, size) as handle:
            head = handle.read(min(size, 512))
            handle.seek(0)
            if head.startswith(b"PK\x03\x04"):
                return _open_zip(file, handle)
            if head.startswith(b"\x80"):  # every pickle of a protocol that torch writes
                return _open_legacy(file, handle)
    except JclipError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged offset: before the file's start
            raise JclipError(f"{file} cannot be read ({error.strerror}): look after the disk") from None
        raise _damaged(file, error) from None
    except _DAMAGE as error:
        raise _damaged(file, error) from None
    raise JclipError(f"{file} is no PyTorch checkpoint, neither zip archive nor the older format: {instead(head)}")


def _damaged(file: Path, error: Exception) -> JclipError:
    reason = shown(" ".join(str(error).split()) or type(error).__name__)
    return JclipError(f"{file} is damaged or no PyTorch checkpoint ({reason}): fetch it again")


# The zip formats.


def _open_zip(file: Path, handle: Careful) -> TorchFile:
    infos = members(file, handle)
    pickles = [name for name in infos if name.endswith("/data.pkl") and name.count("/") == 1]
    if not pickles:
        raise JclipError(f"{file} is a zip archive, but no PyTorch checkpoint: it has no data.pkl")
    if len(pickles) > 1:
        raise JclipError(
            f"{file} holds two checkpoints, {shown(pickles[0])} and {shown(pickles[1])}: refusing to choose"
        )
    root = pickles[0].removesuffix("data.pkl")
    # An archive may have been written without checksums (torch.serialization.set_crc32_options): then all are 0.
    checked = any(info.CRC for info in infos.values())
    stored = {name: Member(file, handle, info, checked) for name, info in infos.items() if _is_data(name, root)}
    order = stored[root + "byteorder"].whole() if root + "byteorder" in stored else b"little"
    if order not in (b"little", b"big"):
        raise JclipError(f"{file}: its byte order is {order[:20]!a}, neither little nor big: fetch it again")
    storages: dict[str, Storage] = {}

    def storage(key: str, size: int) -> Storage:
        name = f"{root}data/{key}"
        if name not in stored or stored[name].size < size:
            raise JclipError(f"{file} is damaged: {shown(name)} is missing or too short: fetch it again")
        return storages.setdefault(key, Storage(stored[name].size, stored[name].blocks, swapped=order == b"big"))

    script = root + "constants.pkl" in infos
    pickle = io.BytesIO(stored[pickles[0]].whole())
    return _collect(file, load(pickle, finder(file, script), partial(_slice, storage)), script)


def _is_data(name: str, root: str) -> bool:
    return name in (root + "data.pkl", root + "byteorder") or name.startswith(root + "data/")


# The older format.


def _open_legacy(file: Path, handle: Careful) -> TorchFile:
    find, starts, storages = finder(file, script=False), dict[str, int](), dict[str, Storage]()

    def blocks(key: str, start: int, stop: int) -> Iterator[np.ndarray]:
        return read_blocks(file, starts[key] + start, starts[key] + stop)

    def storage(key: str, size: int) -> Storage:
        return storages.setdefault(key, Storage(size, partial(blocks, key)))

    def nothing(key: Any) -> Any:
        raise ValueError("its head is not that of a checkpoint")

    if load(handle, find, nothing) != _MAGIC or load(handle, find, nothing) != _PROTOCOL:
        raise JclipError(f"{file} is a pickle, but no PyTorch checkpoint: save it with torch.save")
    load(handle, find, nothing)  # about the machine that wrote it; values are little-endian whatever it says
    units: dict[str, int] = {}
    saved = load(handle, find, partial(_slice, storage, units=units))
    for key in load(handle, find, nothing):
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
    """What stands for a persistent id: ("storage", class, key, device, values), and in the older format a view."""
    kind, dtype, name, _, count, *view = key
    if kind != "storage" or not isinstance(dtype, np.dtype) or type(name) is not str or not _counts(count):
        raise ValueError("it refers to something that is no storage")
    if units is not None:
        units.setdefault(name, dtype.itemsize)
    found, first = storage(name, count * dtype.itemsize), 0
    if view and view[0] is not None:
        _, first, part = view[0]
        if not _counts(first, part) or first + part > count:
            raise ValueError("a view is larger than its storage")
        count = part
    if (first + count) * dtype.itemsize > found.size:
        raise ValueError("two tensors disagree on the size of their storage")
    return Slice(found, dtype, first, count)


# From what is saved to tensors with names.


def _collect(file: Path, saved: Any, script: bool) -> TorchFile:
    tensors: dict[str, Lazy] = {}
    values: dict[str, Any] = {}
    if isinstance(saved, Strided | Unreadable):
        raise JclipError(f"{file} holds a single tensor without a name: save a state_dict() with torch")
    for name, leaf in _leaves(saved, "", _Budget(), 0):
        if name in tensors or name in values:
            raise JclipError(f"{file} has two things called {shown(name)}: refusing to choose")
        if isinstance(leaf, Unreadable):
            raise JclipError(f"{file}: {shown(name)} {leaf.why}")
        if isinstance(leaf, Strided):
            tensors[name] = _named(file, shown(name), _lazy(f"{file}: {shown(name)}", leaf))
        elif isinstance(leaf, str | int | float):
            values[name] = leaf
    return TorchFile(tensors, values, script)


@dataclass
class _Budget:
    """Dicts that hold each other make endlessly many names out of a small file."""

    left: int = _MOST

    def spend(self, name: str, depth: int) -> None:
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST or len(name) > _LONGEST:
            raise ValueError("it is nested too deep, or holds too many things, to be a checkpoint")
        name.encode("utf-8")  # a ValueError for half of a surrogate pair, which no file could be named after


def _leaves(node: Any, name: str, budget: _Budget, depth: int) -> Iterator[tuple[str, Any]]:
    budget.spend(name, depth)
    while isinstance(node, Bag):
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
    """A tensor's recipe, once everything that it says of itself fits into its storage."""
    part, dtype, offset, size, stride = tensor.slice, tensor.dtype, tensor.offset, tensor.size, tensor.stride
    if not isinstance(dtype, np.dtype) or not isinstance(size, tuple | list) or not isinstance(stride, tuple | list):
        raise JclipError(f"{what} is damaged: fetch the file again")
    shape, step = tuple(size), dtype.itemsize
    if not _counts(offset, *shape, *stride) or len(stride) != len(shape):
        raise JclipError(f"{what} has a shape or strides that are no counts: fetch the file again")
    if 0 in shape:
        nbytes(shape, dtype)
        return Lazy(shape, dtype, lambda: iter(()))
    # The tensor counts in values of its own dtype, which is not always that of its storage (float8 in bytes).
    start = part.first * part.dtype.itemsize + offset * step
    stop = start + (1 + sum((length - 1) * jump for length, jump in zip(shape, stride, strict=True))) * step
    end = (part.first + part.count) * part.dtype.itemsize
    if stop > end or nbytes(shape, dtype) > max(part.storage.size, _EXPANDED):
        raise JclipError(f"{what} reaches beyond its storage: fetch the file again")
    if _contiguous(shape, stride):
        return Lazy(shape, dtype, partial(_contiguous_parts, part.storage, dtype, start, stop))
    return Lazy(shape, dtype, partial(_strided_parts, part.storage, dtype, start, stop, shape, tuple(stride)))


def _named(file: Path, name: str, tensor: Lazy) -> Lazy:
    """The tensor, whose errors name it too: the number of its storage tells nobody which parameter is damaged."""

    def parts() -> Iterator[np.ndarray]:
        try:
            yield from tensor.parts()
        except JclipError as error:
            raise JclipError(f"{file}: {name}: {str(error).removeprefix(f'{file}: ')}") from None

    return replace(tensor, parts=parts)


def _counts(*numbers: Any) -> bool:
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
    """Of a transposed or repeated tensor: the part of the storage that it lies in is held while it is read."""
    span = Lazy(
        ((stop - start) // dtype.itemsize,), dtype, partial(_contiguous_parts, storage, dtype, start, stop)
    ).read()
    view = np.lib.stride_tricks.as_strided(span, shape, [jump * dtype.itemsize for jump in stride])
    for first in range(0, view.size, BLOCK // dtype.itemsize):
        yield view.flat[first : first + BLOCK // dtype.itemsize]
