"""What a frozen tower makes of a source, on disk: computed once, and read by number ever after.

    CACHE/image-1f0c…/             one folder a tower and source; the name is a hash of all that decides the numbers
      description.json             what that is, for people, and how the rows are laid out
      features-00000-of-00003.array_record, …   a record a row, its bytes in the tower's dtype, or why there is none

A file has its name once it is whole. So what a process that is killed leaves is whole files, which the next one keeps.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jclip.config import to_json
from jclip.data.sources.source import Source
from jclip.data.sources.writing import count_records
from jclip.errors import JclipError
from jclip.io.files import check_utf8, whole_file
from jclip.io.json_files import entry, read_object
from jclip.plain import as_json

_DESCRIPTION = "description.json"
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_FREE = ("weight", "english_share", "folder")  # of a source: its records are the same whatever these are
_NOTE = b"?"  # what a row begins with that is the reason why there is none

FeatureRow = np.ndarray | str
"""Features (d,), or why the tower could read nothing there."""


class DamagedCache(JclipError):
    """Its bytes are not those that were written: no fault of the data, for which another example could stand in."""


@dataclass(frozen=True)
class FeatureCache:
    """The rows of one source, whole or in the making.

    Attributes:
      folder: where.
      count: of rows: a source's pictures, or its texts in English, in order.
      width: of a row.
      dtype: of the rows on disk, "float32" or "bfloat16".
      shard_rows: of a file; the last may have fewer.
      first: the row of each record's first picture; None where each record has one row.

    Raises:
      JclipError: the folder's name is not UTF-8.
    """

    folder: Path
    count: int
    width: int
    dtype: str
    shard_rows: int
    first: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_utf8(self.folder)

    @property
    def shards(self) -> int:
        """How many files there are in the end."""
        return -(-self.count // self.shard_rows)

    @property
    def files(self) -> list[Path]:
        """All of them, in order."""
        return [self._file(shard) for shard in range(self.shards)]

    def rows_of(self, shard: int) -> range:
        """The numbers of a file's rows."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.count))

    def missing(self) -> list[int]:
        """The files that are still to be written, or that are not what they should be."""
        return [shard for shard in range(self.shards) if not self._is_whole(shard)]

    def write(self, shard: int, rows: Sequence[FeatureRow]) -> None:
        """Writes a file, unless another run has done so in the meantime; of two at the same time the last one stays.

        Raises:
          JclipError: it cannot be written, or the disk is full.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        if self._is_whole(shard):
            return
        try:
            with whole_file(self._file(shard), replace=True) as partial:
                writer = ArrayRecordWriter(str(partial), "group_size:1")  # a row a group: rows are read one by one
                for row in rows:
                    writer.write(self._packed(row))
                writer.close()
        except RuntimeError as error:  # array_record's, of whatever the disk says
            reason = str(error).partition(";")[0]
            raise JclipError(
                f"{self._file(shard)} cannot be written ({reason}): free some space there, or choose another cache"
            ) from None

    def row(self, record: int, picture: int = 0) -> np.ndarray:
        """Features of a picture of a record, or of its English text: float32 (d,).

        Raises:
          JclipError: the tower could read nothing there.
          DamagedCache: nobody knows whether it could.
        """
        number = (record if self.first is None else self.first[record]) + picture
        try:
            data = self._records[number]
        except Exception as error:  # of whatever type the damage makes array_record raise
            reason = str(error).partition(";")[0]
            raise DamagedCache(f"{self.folder} is damaged ({reason}): delete it, and it is made again") from None
        if len(data) != self.width * _DTYPES[self.dtype].itemsize:
            raise JclipError(data.removeprefix(_NOTE).decode("utf-8").rstrip("\0"))
        return np.frombuffer(data, _DTYPES[self.dtype]).astype(np.float32)

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
            return data + b"\0" if len(data) == size else data  # its length tells it from features
        return row.astype(_DTYPES[self.dtype]).tobytes()


def describe_source(source: Source, cache: Path) -> dict[str, Any]:
    """A source's part of what decides the rows: which it is, and what its folder holds.

    Files are known by name, size and the time of their last change. Whoever copies a folder without its times has a
    cache made again; nothing that was written into it goes unnoticed.

    Args:
      source: of a stage.
      cache: may lie in the source's folder, and does not count.
    """
    kept = {name: value for name, value in to_json(source).items() if name not in _FREE}
    found = {}
    if name := getattr(source, "folder", None):
        folder, cache = Path(name).resolve(), cache.resolve()  # one may be named from the root, the other from here
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_relative_to(cache) and not file.name.startswith("."):
                found[file.relative_to(folder).as_posix()] = [file.stat().st_size, file.stat().st_mtime_ns]
    digest = hashlib.blake2b(json.dumps(found).encode(), digest_size=16).hexdigest()
    return {"source": type(source).__name__, **kept, "files": digest}


def open_cache(
    place: Path, name: str, description: dict[str, Any], *, count: int, width: int, dtype: str, shard_rows: int
) -> FeatureCache:
    """The cache of a description, begun if there is none.

    Args:
      place: the folder of all caches.
      name: what the folder's name begins with.
      description: JSON-ready: everything that decides the numbers. Another one is another cache.
      count, width, dtype: see `FeatureCache`.
      shard_rows: of a new one.

    Raises:
      JclipError: it cannot be written or read.
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
