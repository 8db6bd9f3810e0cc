"""Disk cache of a frozen tower's features of one source: computed once, then read by row number.

    CACHE/image-1f0c…/             a folder for each tower and source; named by a hash of all that decides the values
      description.json             what was hashed, and the layout of the rows
      features-00000-of-00003.array_record, …   one record per row: its bytes in the tower's dtype, or an error message

Files are written atomically. So a killed process leaves only complete files, which the next one reuses.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jclip.config import leaves, to_json
from jclip.data.sources.source import Source
from jclip.data.sources.writing import count_records
from jclip.errors import JclipError
from jclip.io.files import check_utf8, whole_file
from jclip.io.json_files import entry, read_object
from jclip.marks import Mark, marked
from jclip.plain import as_json

_DESCRIPTION = "description.json"
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_NOTE = b"?"  # first byte of a row that is an error message

FeatureRow = np.ndarray | str
"""Features (d,), or the reason why the tower could not read it."""


class DamagedCache(JclipError):
    """Error of a cache whose bytes have changed. Unlike an unreadable image, no example replaces it."""


@dataclass(frozen=True)
class FeatureCache:
    """Cached features of one source, complete or not. Raises JclipError if the folder's name is not UTF-8.

    Attributes:
      count: number of rows: the source's images, or its English texts, in order.
      width: length of a row.
      dtype: dtype of the rows on disk, "float32" or "bfloat16".
      shard_rows: number of rows per file; the last may have fewer.
      first_rows: row of each record's first image; None if each record has one row.
    """

    folder: Path
    count: int
    width: int
    dtype: str
    shard_rows: int
    first_rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_utf8(self.folder)

    @property
    def shards(self) -> int:
        """Number of files of the complete cache."""
        return -(-self.count // self.shard_rows)

    @property
    def files(self) -> list[Path]:
        """Files of the complete cache, in order."""
        return [self._file(shard) for shard in range(self.shards)]

    def rows_of(self, shard: int) -> range:
        """Returns the numbers of a file's rows."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.count))

    def unit(self, row: int) -> tuple[int, int]:
        """Returns the (record, image) of a row."""
        record = bisect_right(self._firsts, row) - 1
        return record, row - self._firsts[record]

    def missing(self) -> list[int]:
        """Returns the numbers of the files that do not exist or are incomplete."""
        return [shard for shard in range(self.shards) if not self._is_whole(shard)]

    def write(self, shard: int, rows: Sequence[FeatureRow]) -> None:
        """Writes a file, unless another run has written it. If two write at the same time, the last one stays.

        Raises JclipError if it cannot be written, or the disk is full.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        if self._is_whole(shard):
            return
        try:
            with whole_file(self._file(shard), replace=True) as partial:
                writer = ArrayRecordWriter(str(partial), "group_size:1")  # because rows are read one by one
                for row in rows:
                    writer.write(self._packed(row))
                writer.close()
        except RuntimeError as error:  # array_record's error for any error of the disk
            reason = str(error).partition(";")[0]
            raise JclipError(f"{self._file(shard)} cannot be written ({reason}): free some space") from None

    def row(self, record: int, picture: int = 0) -> np.ndarray:
        """Returns features of an image of a record, or of its English text, float32 (d,).

        Raises JclipError if the tower could not read it, and DamagedCache if the row cannot be read.
        """
        number = self._firsts[record] + picture
        if number >= self.count or self.unit(number) != (record, picture):
            raise IndexError(f"record {record} has no input {picture} in {self.folder}: see `Record.inputs`")
        try:
            data = self._records[number]
        except Exception as error:  # array_record raises all kinds of errors for damage
            reason = str(error).partition(";")[0]
            raise DamagedCache(f"{self.folder} is damaged ({reason}): delete it; the next run makes it again") from None
        if len(data) != self.width * _DTYPES[self.dtype].itemsize:
            raise JclipError(data.removeprefix(_NOTE).decode("utf-8").rstrip("\0"))
        return np.frombuffer(data, _DTYPES[self.dtype]).astype(np.float32)

    @property
    def _firsts(self) -> Sequence[int]:
        return range(self.count) if self.first_rows is None else self.first_rows

    @cached_property
    def _records(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource([str(file) for file in self.files])

    def _file(self, shard: int) -> Path:
        return self.folder / f"features-{shard:05}-of-{self.shards:05}.array_record"

    def _is_whole(self, shard: int) -> bool:
        return self._file(shard).exists() and count_records(self._file(shard)) == len(self.rows_of(shard))

    def _packed(self, row: FeatureRow) -> bytes:
        if isinstance(row, str):
            data, size = _NOTE + row.encode("utf-8"), self.width * _DTYPES[self.dtype].itemsize
            return data + b"\0" if len(data) == size else data  # only features have this length
        return row.astype(_DTYPES[self.dtype]).tobytes()


def describe_source(source: Source, cache: Path) -> dict[str, Any]:
    """Describes a source for the identity of its cache: its configuration, and the files in its `Folder` fields.

    Files are compared by name, size and modification time. So a changed file, or a folder copied without its times,
    gets a new cache. `cache`, the folder of all caches, is ignored if it is in a folder of the source.
    """
    config, folders, cache = to_json(source), marked(source, Mark.FOLDER), cache.resolve()
    kept = {name: value for name, value in config.items() if name not in (*folders, *marked(source, Mark.MIXING))}
    found = {}
    for name, place in leaves(config):
        if name in folders and place:
            folder = Path(place).resolve()  # the path, or the cache's, may be relative
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not file.is_relative_to(cache) and not file.name.startswith("."):
                    found[f"{name}/{file.relative_to(folder)}"] = [file.stat().st_size, file.stat().st_mtime_ns]
    digest = hashlib.blake2b(json.dumps(found).encode(), digest_size=16).hexdigest()
    return {"source": type(source).__name__, **kept, "files": digest}


def open_cache(
    place: Path, name: str, description: dict[str, Any], *, count: int, width: int, dtype: str, shard_rows: int
) -> FeatureCache:
    """Opens the cache of a description, or begins it. Raises JclipError if it cannot be written or read.

    Args:
      place: folder of all caches.
      name: beginning of the folder's name.
      description: JSON-ready; everything that decides the values. Another description is another cache.
      count, width, dtype: see `FeatureCache`.
      shard_rows: number of rows per file, for a new cache.
    """
    text = json.dumps(description, sort_keys=True)
    folder = place / f"{name}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    file = folder / _DESCRIPTION
    if not file.exists():
        record = {"shard_rows": shard_rows, "rows": count, "width": width, "dtype": dtype, "of": description}
        try:
            with whole_file(file) as partial:
                partial.write_text(as_json(record, indent=2) + "\n", encoding="utf-8")
        except JclipError:
            if not file.exists():  # else another run has just begun the same cache
                raise
    shard_rows = entry(read_object(file, "as the description of a cache"), "shard_rows", int, file)
    if shard_rows < 1:
        raise JclipError(f"{file}: shard_rows is {shard_rows}, but must be 1 or more: remove the folder")
    return FeatureCache(folder, count, width, dtype, shard_rows)
