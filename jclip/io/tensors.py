"""Tensors whose values are read on demand, and the functions that read blocks of bytes from files."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jclip.errors import JclipError

BLOCK = 8 << 20
"""Number of bytes read at once. A power of two, so that a block holds whole values of every dtype."""


@dataclass(frozen=True)
class Lazy:
    """Tensor whose values are read on demand.

    Attributes:
      shape: shape of the whole tensor.
      dtype: dtype in the machine's byte order.
      parts: yields the values in C order, in arrays of `dtype` and of any shape. Each call starts from the beginning.
      span: yields the values between two flat indices likewise; None if only the whole tensor can be read.
      whole: returns the whole tensor, if there is a faster way than its parts.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Callable[[], Iterator[np.ndarray]]
    span: Callable[[int, int], Iterator[np.ndarray]] | None = None
    whole: Callable[[], np.ndarray] | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> "Lazy":
        """Wraps an array that is in memory."""
        array = np.asarray(array)
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return cls(native.shape, native.dtype, lambda: iter([native]))

    def read(self) -> np.ndarray:
        """Returns the whole tensor, allocated once.

        Raises JclipError if the file is damaged, and ValueError if the parts' size or dtype is not the tensor's.
        """
        if self.whole is not None:
            return self.whole()
        whole = np.empty(self.shape, self.dtype)
        flat, filled = whole.reshape(-1), 0
        for piece in self.pieces():
            flat[filled : filled + piece.size] = piece
            filled += piece.size
        return whole

    def layer(self, index: int) -> np.ndarray:
        """Returns the values at one index of the first axis; reads only these from a file, if the format allows.

        Raises JclipError if the file is damaged.
        """
        if self.span is None:
            return self.read()[index]
        shape = self.shape[1:]
        size, span = math.prod(shape), self.span
        return Lazy(shape, self.dtype, lambda: span(index * size, (index + 1) * size)).read()

    def pieces(self) -> Iterator[np.ndarray]:
        """Yields the parts as flat, contiguous arrays, and checks their dtype and total size.

        Raises JclipError if the file is damaged, and ValueError if the parts' size or dtype is not the tensor's.
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


@dataclass(frozen=True)
class TensorFile:
    """Contents of a file with tensors.

    Attributes:
      tensors: tensors by name. Keys of nested dicts, indices of lists and attributes of TorchScript modules are joined
        with '.': "state_dict.module.visual.conv1.weight". Reading a tensor checks its CRC-32 if the format has one.
      values: numbers and strings stored beside the tensors, by the same kind of name.
      torchscript: True for an archive of `torch.jit.save`.
    """

    tensors: dict[str, Lazy]
    values: dict[str, Any]
    torchscript: bool = False


def nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Returns the number of bytes of a tensor. Raises ValueError if no array can have this shape."""
    # numpy refuses (0, 2**62) too, although it has no values.
    if len(shape) > 64 or math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
        raise ValueError(f"a tensor with {len(shape)} axes is larger than any memory")
    return math.prod(shape) * dtype.itemsize


def read_blocks(file: Path, start: int, stop: int) -> Iterator[np.ndarray]:
    """Yields the bytes of a file from `start` to `stop` as uint8 arrays of BLOCK bytes; the last may be shorter.

    Raises JclipError if the file is shorter, or cannot be read.
    """
    with _opened(file, start) as handle:
        while start < stop:
            block = np.empty(min(BLOCK, stop - start), np.uint8)
            _fill(block, handle, file)
            yield block
            start += block.size


def read_into(array: np.ndarray, file: Path, start: int) -> None:
    """Fills a contiguous array with the bytes of a file from `start`.

    Raises JclipError if the file is shorter, or cannot be read.
    """
    with _opened(file, start) as handle:
        _fill(array.reshape(-1).view(np.uint8), handle, file)


@contextmanager
def _opened(file: Path, start: int) -> Iterator[io.FileIO]:
    try:
        with open(file, "rb", buffering=0) as handle:
            handle.seek(start)
            yield handle
    except OSError as error:
        raise JclipError(f"{file} cannot be read ({error.strerror}): check the disk, or fetch it again") from None


def _fill(block: np.ndarray, handle: io.FileIO, file: Path) -> None:
    filled = 0
    while filled < block.size:
        got = handle.readinto(block.data[filled:])
        if not got:
            raise JclipError(f"{file} became shorter while it was read: fetch it again")
        filled += got


def regular_size(file: Path) -> int:
    """Returns the size of a file in bytes. Raises JclipError if the file is missing, or is a folder or a device."""
    try:
        if not file.is_file():
            raise JclipError(f"{file} is not a file: check the path")
        return file.stat().st_size
    except OSError as error:
        raise JclipError(f"{file} cannot be read ({error.strerror}): check the path") from None


def hint_for(head: bytes) -> str:
    """Returns the end of an error message for a file that holds no tensors, guessed from its first bytes."""
    text = head.lstrip().lower()
    if not head:
        return "it is empty: fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is only a git-lfs pointer to the weights: run `git lfs pull` in its repository"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: download the file itself"
    return "check the path, or fetch it again"
