"""Tensors that are not in memory yet, and safetensors files read and written as streams.

A checkpoint of 3.5 GB passes through in about the memory of one block. Files are read, never mapped: the pages of a
mapping would count as memory of the process. The format: https://huggingface.co/docs/safetensors.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jclip.errors import JclipError
from jclip.io.json_files import decode
from jclip.plain import shown as shown  # the modules of jclip.conversion take it from here

BLOCK = 8 << 20  # bytes; a power of two, so that a block holds whole values of every dtype
_LONGEST_HEADER = 32 << 20  # bytes: 100,000 tensors and more; the format's own bound is 100 MB
_METADATA = "__metadata__"

# In the order in which the reference library lays them out, last first, so that every tensor is aligned.
_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "I16": np.int16,
        "U16": np.uint16,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "I32": np.int32,
        "U32": np.uint32,
        "F32": np.float32,
        "C64": np.complex64,
        "F64": np.float64,
        "I64": np.int64,
        "U64": np.uint64,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ORDER = {name: place for place, name in enumerate(_DTYPES)}


@dataclass(frozen=True)
class Lazy:
    """A tensor whose values are fetched when they are asked for.

    Attributes:
      shape: of the whole.
      dtype: in the machine's byte order.
      parts: gives the values in C order, a piece at a time: arrays of `dtype` and of any shape, whose bytes in a row
        are the tensor. Each call starts anew.
      span: gives the values from one flat index up to another, likewise; None where only all can be had.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Callable[[], Iterator[np.ndarray]]
    span: Callable[[int, int], Iterator[np.ndarray]] | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> "Lazy":
        """A tensor that is in memory after all."""
        array = np.asarray(array)
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return cls(native.shape, native.dtype, lambda: iter([native]))

    def read(self) -> np.ndarray:
        """The whole tensor, in one allocation.

        Raises:
          JclipError: the file that it comes from is damaged.
          ValueError: the parts do not make up the tensor.
        """
        whole = np.empty(self.shape, self.dtype)
        flat, filled = whole.reshape(-1), 0
        for piece in self.pieces():
            flat[filled : filled + piece.size] = piece
            filled += piece.size
        return whole

    def layer(self, index: int) -> np.ndarray:
        """The values at one index of the first axis; of a file, no more than these are read.

        Raises:
          JclipError: the file that it comes from is damaged.
        """
        if self.span is None:
            return self.read()[index]
        shape = self.shape[1:]
        size, span = math.prod(shape), self.span
        return Lazy(shape, self.dtype, lambda: span(index * size, (index + 1) * size)).read()

    def pieces(self) -> Iterator[np.ndarray]:
        """The parts, flat, contiguous and checked.

        Raises:
          JclipError: the file that it comes from is damaged.
          ValueError: the parts do not make up the tensor.
        """
        expected, seen = math.prod(self.shape), 0
        for part in self.parts():
            if part.dtype != self.dtype:
                raise ValueError(f"a part of a {self.dtype} tensor is {part.dtype}")
            seen += part.size
            if seen > expected:
                break
            yield np.ascontiguousarray(part).reshape(-1)
        if seen != expected:
            found = f"only {seen}" if seen < expected else f"{seen} or more"
            raise ValueError(f"the parts of a tensor {self.shape} hold {found} values, not {expected}")


def nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of a tensor.

    Raises:
      ValueError: no array can have this shape.
    """
    # numpy refuses (0, 2**62) too, although it has no values.
    if len(shape) > 64 or math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
        raise ValueError(f"a tensor with {len(shape)} axes is larger than any memory")
    return math.prod(shape) * dtype.itemsize


def read_blocks(file: Path, start: int, stop: int) -> Iterator[np.ndarray]:
    """The bytes of a file from `start` up to `stop`, in uint8 arrays of BLOCK bytes, the last perhaps shorter.

    Raises:
      JclipError: the file ends before, or cannot be read.
    """
    try:
        with open(file, "rb", buffering=0) as handle:
            handle.seek(start)
            while start < stop:
                block = np.empty(min(BLOCK, stop - start), np.uint8)
                filled = 0
                while filled < block.size:
                    got = handle.readinto(block.data[filled:])
                    if not got:
                        raise JclipError(f"{file} became shorter while it was read: fetch it again")
                    filled += got
                yield block
                start += block.size
    except OSError as error:
        raise JclipError(f"{file} cannot be read ({error.strerror}): look after the disk, or fetch it again") from None


def regular_size(file: Path) -> int:
    """Bytes of a file.

    Raises:
      JclipError: there is no such file, or it is a folder or a device.
    """
    try:
        if not file.is_file():
            raise JclipError(f"{file} is no file: check the path")
        return file.stat().st_size
    except OSError as error:
        raise JclipError(f"{file} cannot be read ({error.strerror}): check the path") from None


def instead(head: bytes) -> str:
    """What a file is that should hold weights, told from its first bytes: the end of a message, with the mend."""
    text = head.lstrip().lower()
    if not head:
        return "it is empty: fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is only git-lfs' pointer to the weights: run `git lfs pull` where it came from"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: fetch the file itself"
    return "check the path, or fetch it again"


def open_safetensors(file: Path) -> dict[str, Lazy]:
    """The tensors of a safetensors file, by name, in the order of its header. No value is read yet.

    Raises:
      JclipError: the file is missing, truncated, damaged or no safetensors file, or has a dtype that numpy lacks; the
        tensor is named.
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


def safetensors_metadata(file: Path) -> dict[str, str]:
    """The free text that a safetensors file carries; empty when it has none.

    Raises:
      JclipError: as `open_safetensors` does of a header.
    """
    file = Path(file)
    metadata = _header(file)[0].get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise JclipError(f"{file}: {_METADATA} must hold strings only: fetch the file again")
    return metadata


def write_safetensors(
    file: Path, tensors: Mapping[str, Lazy | np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file piece by piece; the same input gives the same bytes, in whatever order it comes.

    The bytes are those of the reference library: large dtypes first, then by name.

    Raises:
      JclipError: a tensor comes from a file that is damaged.
      ValueError: a tensor has a dtype that the format lacks, or parts that do not make it up; it is named. What has
        been written by then stays.
      OSError: the disk is full, or the place cannot be written to.
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
            for piece in _named(lazy[name].pieces(), f"{file}: {shown(name)}"):
                handle.write(piece.view(np.uint8).data)


def _named(pieces: Iterator[np.ndarray], what: str) -> Iterator[np.ndarray]:
    try:
        yield from pieces
    except JclipError:
        raise
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _header(file: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where the values begin, and the size of the file."""
    size = regular_size(file)
    head = b"".join(block.tobytes() for block in read_blocks(file, 0, min(size, 512)))
    length = int.from_bytes(head[:8], "little")
    if size < 8 or head[8:9] not in (b"{", b""):
        raise JclipError(f"{file} is no safetensors file: {instead(head)}")
    if length > size - 8:
        raise JclipError(f"{file} is truncated: its header alone is larger than the file, fetch it again")
    if length > _LONGEST_HEADER:
        raise JclipError(f"{file} is damaged: its header would be {length} bytes long, fetch it again")
    raw = b"".join(block.tobytes() for block in read_blocks(file, 8, 8 + length))
    try:
        header = decode(raw, unique=True)
        if not isinstance(header, dict):
            raise ValueError("it is no object")
        for name in header:
            name.encode("utf-8")  # JSON lets half of a surrogate pair pass, and no file can be named so
    except ValueError as error:
        raise JclipError(
            f"{file} is damaged: its header cannot be read ({shown(str(error))}): fetch it again"
        ) from None
    return header, 8 + length, size


def _entry(file: Path, name: str, entry: Any) -> tuple[tuple[int, ...], np.dtype, int, int]:
    """Shape, dtype, begin and end of a tensor."""
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        # `type` and not `isinstance`: JSON's true is no size.
        if not all(type(number) is int and number >= 0 for number in [*shape, begin, end]):
            raise ValueError("its shape and offsets must be counts")
        if kind not in _DTYPES:
            raise JclipError(f"{file}: {shown(name)} has dtype {shown(str(kind))}: only {', '.join(_DTYPES)} are read")
        size = nbytes(tuple(shape), _DTYPES[kind])
        if end - begin != size:
            raise ValueError(f"{end - begin} bytes, where its shape needs {size}")
    except JclipError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = shown(str(error))
        raise JclipError(
            f"{file}: the header's entry for {shown(name)} is damaged ({reason}): fetch it again"
        ) from None
    return tuple(shape), _DTYPES[kind], begin, end


def _check_cover(file: Path, places: list[tuple[int, int, str]], size: int) -> None:
    """The tensors must cover what follows the header, with no hole and no overlap: so says the format."""
    covered = 0
    for begin, end, name in places:
        if begin != covered:
            what = "leaves a hole before" if begin > covered else "overlaps another at"
            raise JclipError(f"{file} is damaged: {shown(name)} {what} byte {begin} of the values: fetch it again")
        covered = end
    if covered > size:
        raise JclipError(
            f"{file} is truncated: the last {covered - size} of {covered} bytes are missing: fetch it again"
        )
    if covered < size:
        raise JclipError(f"{file} is damaged: {size - covered} bytes at its end belong to no tensor: fetch it again")


def _stored(file: Path, shape: tuple[int, ...], dtype: np.dtype, start: int, stop: int) -> Lazy:
    def blocks(begin: int, end: int) -> Iterator[np.ndarray]:
        return (block.view(dtype) for block in read_blocks(file, begin, end))

    size = dtype.itemsize
    return Lazy(
        shape,
        dtype,
        lambda: blocks(start, stop),
        lambda first, last: blocks(start + first * size, start + last * size),
    )
