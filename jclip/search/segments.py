"""Segments of an index: float16 vectors in .npy files, which are memory-mapped."""

import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jclip.errors import first_line
from jclip.io.files import whole_file
from jclip.io.reading import Refused, open_regular
from jclip.search.schema import damaged

FOLDER = "segments"
ROWS = 65_536
"""Maximum number of vectors of a segment that jclip writes."""

DTYPE = np.dtype("<f2")
_MOST_SEGMENTS = 1_000_000


class Segment(NamedTuple):
    """Row of the table of segments: vectors `first` to `first + rows - 1` are in file `number`."""

    number: int
    first: int
    rows: int


def segment_file(index: Path, number: int) -> Path:
    """Returns the file of a segment."""
    return index / FOLDER / f"{number:06d}.npy"


def read_segments(index: Path, rows: Iterable[tuple[object, ...]], dim: int) -> "Segments":
    """Opens an index's segments, given the rows of their table.

    Raises JclipError if they do not follow each other without gaps, or a file is damaged or of another size.
    Raises FileNotFoundError if a file is missing.
    """
    found: list[Segment] = []
    end = 0
    for row in rows:
        if not all(isinstance(value, int) and 0 <= value < 2**48 for value in row):
            raise damaged(index, "the table of segments holds a wrong value")
        segment = Segment(*row)  # type: ignore[arg-type]
        if segment.first != end or segment.rows < 1 or len(found) >= _MOST_SEGMENTS:
            raise damaged(index, f"segment {segment.number} does not follow the one before")
        end += segment.rows
        found.append(segment)
    return Segments(found, [_mapped(segment_file(index, each.number), each.rows, dim) for each in found], dim)


def _mapped(file: Path, count: int, dim: int) -> np.ndarray:
    try:
        with open_regular(file) as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError("it has another version of the .npy format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            offset = stream.tell()
            size = stream.seek(0, 2)
        if dtype != DTYPE or fortran or shape != (count, dim):
            raise ValueError(f"it holds {dtype} {shape}, not {DTYPE} {(count, dim)}")
        if size != offset + math.prod(shape) * DTYPE.itemsize:
            raise ValueError("it is incomplete")
    except FileNotFoundError:
        raise
    except (OSError, Refused) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise damaged(file, reason or "") from None
    except Exception as error:  # numpy parses the header with `ast`, which raises all kinds of errors
        raise damaged(file, first_line(error)) from None
    return np.memmap(file, DTYPE, "r", offset, (count, dim))


class Segments:
    """Vectors of all segments, as one table of (n, dim) float16."""

    def __init__(self, segments: list[Segment], arrays: list[np.ndarray], dim: int):
        self.table = segments
        self._arrays, self._dim = arrays, dim
        self._firsts = [segment.first for segment in segments]

    def __len__(self) -> int:
        return self.table[-1].first + self.table[-1].rows if self.table else 0

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (number of the first vector, at most `rows` vectors of one segment)."""
        for segment, array_nd in zip(self.table, self._arrays, strict=True):
            for start in range(0, segment.rows, rows):
                yield segment.first + start, array_nd[start : start + rows]

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Returns vectors by number; the numbers must be in range."""
        found_nd = np.empty((len(numbers), self._dim), DTYPE)
        places = np.searchsorted(self._firsts, numbers, side="right") - 1
        for place in np.unique(places):
            mine = places == place
            found_nd[mine] = self._arrays[place][numbers[mine] - self._firsts[place]]
        return found_nd

    def one(self, number: int) -> np.ndarray:
        """Returns a copy of one vector; the number must be in range."""
        place = bisect_right(self._firsts, number) - 1
        return np.array(self._arrays[place][number - self._firsts[place]])


def write_segment(index: Path, segment: Segment, blocks: Iterable[np.ndarray], dim: int) -> None:
    """Writes the file of a segment from blocks of vectors (n, dim). An older file of this number is replaced."""
    file = segment_file(index, segment.number)
    with whole_file(file, replace=True) as partial, partial.open("wb") as stream:
        write_array(stream, (segment.rows, dim), blocks)
        stream.flush()
        os.fsync(stream.fileno())


def write_array(stream: BinaryIO, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> None:
    """Writes an .npy file of float16 (n, dim) from blocks of its rows."""
    np.lib.format.write_array_header_1_0(stream, {"descr": DTYPE.str, "fortran_order": False, "shape": shape})
    rows = 0
    for block_nd in blocks:
        stream.write(np.ascontiguousarray(block_nd, DTYPE).data)
        rows += len(block_nd)
    assert rows == shape[0], "as many vectors as the table says"
