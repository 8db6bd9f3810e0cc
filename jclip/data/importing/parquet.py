"""Parquet files with the pictures' bytes in a column: plain binary, or the {"bytes", "path"} of Hugging Face datasets.

A row group is a part: it is what a reader of Parquet can have without the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.data.importing.parts import UNCAPTIONED, Found, Lost, Part, Reader, Reading, numbered
from jclip.data.kinds import PAIRS, StoredPair
from jclip.errors import JclipError
from jclip.files import check_utf8


@dataclass(frozen=True)
class ParquetReader(Reader):
    """Files, in the order of their names.

    Attributes:
      split: that they become.
      picture, caption: columns; a caption may be a string or a list of strings.
      language_column: None for `language`.
      language: of the captions.
    """

    split: str = "train"
    picture: str = "image"
    caption: str = "caption"
    language_column: str | None = None
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """See `Reader`."""
        parts: list[Part] = []
        first = 0
        for file in self.files:
            stored = _open(file)
            have = stored.schema_arrow.names
            for name in filter(None, (self.picture, self.caption, self.language_column)):
                if name not in have:
                    raise JclipError(
                        f"{file} has no column {name!r}, only {', '.join(map(repr, have[:9]))}: name it with --picture "
                        "or --caption"
                    )
            for group in range(stored.num_row_groups):
                parts.append(_Part(self, file, group, first))
                first += stored.metadata.row_group(group).num_rows
        return parts


def open_parquet(source: Path, reading: Reading) -> ParquetReader:
    """Opens a file, or all .parquet files of a folder.

    Raises:
      JclipError: there is none, or pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise JclipError("Parquet files need the package pyarrow: pip install 'jclip[data]'") from None
    files = [source] if source.is_file() else sorted(source.glob("*.parquet"))
    if not files:
        raise JclipError(f"{source} names no Parquet file: name one, or a folder of .parquet files")
    return ParquetReader(
        PAIRS,
        tuple(files),
        False,
        (),
        reading.split(),
        reading.picture or "image",
        reading.caption or "caption",
        reading.language_column,
        reading.language or "",
    )


def _open(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    check_utf8(file, "pyarrow")
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise JclipError(f"{file} is no whole Parquet file ({str(error).splitlines()[0]}): fetch it again") from None


def _rows(file: Path, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        for batch in _open(file).iter_batches(256, row_groups=[group], columns=columns):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise JclipError(f"{file}, row group {group} is damaged ({reason}): fetch it again") from None


@dataclass(frozen=True)
class _Part:
    reader: ParquetReader
    file: Path
    group: int
    first: int

    @property
    def split(self) -> str:
        return self.reader.split

    def records(self) -> Iterator[Found | Lost]:
        reader = self.reader
        columns = [name for name in (reader.picture, reader.caption, reader.language_column) if name]
        for number, row in enumerate(_rows(self.file, self.group, columns), self.first):
            place = f"{self.file.name}, row {number + 1}"
            found = self._record(row, number)
            yield Lost(place, found) if isinstance(found, str) else Found(place, found)

    def _record(self, row: dict[str, Any], number: int) -> StoredPair | str:
        reader = self.reader
        image = row[reader.picture]
        if isinstance(image, dict):
            image = image.get("bytes")
        if not isinstance(image, bytes):
            return "no bytes of a picture"
        captions = row[reader.caption]
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, list) or not captions or not all(isinstance(each, str) for each in captions):
            return UNCAPTIONED
        language = str(row[reader.language_column] or "") if reader.language_column else reader.language
        return numbered(image, tuple(captions), number, (language,) * len(captions))
