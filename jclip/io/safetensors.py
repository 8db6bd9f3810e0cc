"""Safetensors files, read and written as streams of blocks.

A checkpoint of 3.5 GB takes about the memory of one block. Files are read, not mapped into memory, because the pages
of a mapping count as memory of the process. Format: https://huggingface.co/docs/safetensors.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jclip.errors import JclipError
from jclip.io.json_files import decode
from jclip.io.tensors import Lazy, hint_for, nbytes, read_blocks, read_into, regular_size
from jclip.plain import shown

_LONGEST_HEADER = 32 << 20  # bytes: 100,000 tensors and more; the format's own bound is 100 MB
_METADATA = "__metadata__"

# The reference library writes the last of these first, so that every tensor is aligned.
_DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ORDER = {name: place for place, name in enumerate(_DTYPES)}


def open_safetensors(file: Path) -> dict[str, Lazy]:
    """Returns the tensors of a safetensors file by name, in the order of its header, without reading their values.

    Raises JclipError if the file is missing, damaged or not safetensors, or a tensor has a dtype that numpy lacks.
    """
    file = Path(file)
    header, start, size = _header(file)
    tensors: dict[str, Lazy] = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name != _METADATA:
            shape, dtype, begin, end = _entry(file, name, entry)
            tensors[name] = _stored(file, shape, dtype, start + begin, start + end)
            places.append((begin, end, name))
    _check_cover(file, sorted(places), size - start)
    return tensors


def write_safetensors(
    file: Path, tensors: Mapping[str, Lazy | np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file, one block at a time.

    The bytes do not depend on the order of `tensors`. They equal those of the reference library: large dtypes first,
    then by name. After an error the unfinished file stays. Raises JclipError if a tensor is read from a damaged file;
    ValueError if the format lacks a tensor's dtype, or a tensor's parts have another size than the tensor; and OSError
    if the disk is full, or the file cannot be written.
    """
    lazy = {name: tensor if isinstance(tensor, Lazy) else Lazy.of(tensor) for name, tensor in tensors.items()}
    for name, tensor in lazy.items():
        if tensor.dtype not in _NAMES or name == _METADATA:
            raise ValueError(f"{file}: safetensors cannot hold {shown(name)} of dtype {tensor.dtype}")
    names = sorted(lazy, key=lambda name: (-_ORDER[_NAMES[lazy[name].dtype]], name.encode()))
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + nbytes(lazy[name].shape, lazy[name].dtype)
        shape = list(lazy[name].shape)
        header[name] = {"dtype": _NAMES[lazy[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # so that the values that follow are aligned
    with open(file, "wb") as handle:
        handle.write(len(head).to_bytes(8, "little") + head)
        for name in names:
            for piece in _with_name(lazy[name].pieces(), f"{file}: {shown(name)}"):
                handle.write(piece.view(np.uint8).data)


def _with_name(pieces: Iterator[np.ndarray], what: str) -> Iterator[np.ndarray]:
    try:
        yield from pieces
    except JclipError:
        raise
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _header(file: Path) -> tuple[dict[str, Any], int, int]:
    """Returns the header, the offset of the first value, and the size of the file."""
    size = regular_size(file)
    head = b"".join(block.tobytes() for block in read_blocks(file, 0, min(size, 512)))
    length = int.from_bytes(head[:8], "little")
    if size < 8 or head[8:9] not in (b"{", b""):
        raise JclipError(f"{file} is not a safetensors file: {hint_for(head)}")
    if length > size - 8:
        raise JclipError(f"{file} is truncated: its header alone is larger than the file, fetch it again")
    if length > _LONGEST_HEADER:
        raise JclipError(f"{file} is damaged: its header would be {length} bytes long, fetch it again")
    raw = b"".join(block.tobytes() for block in read_blocks(file, 8, 8 + length))
    try:
        header = decode(raw, unique=True)
        if not isinstance(header, dict):
            raise ValueError("it is not an object")
        for name in header:
            name.encode("utf-8")  # JSON allows half of a surrogate pair, which no file name can hold
    except ValueError as error:
        reason = shown(str(error))
        raise JclipError(f"{file} is damaged: its header cannot be read ({reason}): fetch it again") from None
    return header, 8 + length, size


def _entry(file: Path, name: str, entry: Any) -> tuple[tuple[int, ...], np.dtype, int, int]:
    """Returns the shape, dtype, first and last byte of a tensor."""
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        # `type` and not `isinstance`, because JSON's true is an int.
        if not all(type(number) is int and number >= 0 for number in [*shape, begin, end]):
            raise ValueError("its shape and offsets must be whole numbers >= 0")
        if kind not in _DTYPES:
            raise JclipError(f"{file}: {shown(name)} has dtype {shown(str(kind))}: jclip reads {', '.join(_DTYPES)}")
        size = nbytes(tuple(shape), _DTYPES[kind])
        if end - begin != size:
            raise ValueError(f"{end - begin} bytes, where its shape needs {size}")
    except JclipError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = shown(str(error))
        raise JclipError(f"{file}: the entry for {shown(name)} is damaged ({reason}): fetch it again") from None
    return tuple(shape), _DTYPES[kind], begin, end


def _check_cover(file: Path, places: list[tuple[int, int, str]], size: int) -> None:
    """Checks that the tensors cover the bytes after the header without holes or overlaps, as the format demands."""
    covered = 0
    for begin, end, name in places:
        if begin != covered:
            what = "leaves a hole before" if begin > covered else "overlaps another at"
            raise JclipError(f"{file} is damaged: {shown(name)} {what} byte {begin} of the values: fetch it again")
        covered = end
    if covered > size:
        raise JclipError(f"{file} is truncated: {covered - size} of {covered} bytes are missing: fetch it again")
    if covered < size:
        raise JclipError(f"{file} is damaged: {size - covered} bytes at its end belong to no tensor: fetch it again")


def _stored(file: Path, shape: tuple[int, ...], dtype: np.dtype, start: int, stop: int) -> Lazy:
    return Lazy(
        shape,
        dtype,
        partial(_values, file, dtype, start, 0, (stop - start) // dtype.itemsize),
        partial(_values, file, dtype, start),
        partial(_whole, file, shape, dtype, start),
    )


def _whole(file: Path, shape: tuple[int, ...], dtype: np.dtype, start: int) -> np.ndarray:
    """Returns a tensor that begins at byte `start`, read into its place."""
    found = np.empty(shape, dtype)
    read_into(found, file, start)
    return found


def _values(file: Path, dtype: np.dtype, start: int, first: int, last: int) -> Iterator[np.ndarray]:
    """Yields the values of a tensor that begins at byte `start`, from flat index `first` to `last`."""
    for block in read_blocks(file, start + first * dtype.itemsize, start + last * dtype.itemsize):
        yield block.view(dtype)
