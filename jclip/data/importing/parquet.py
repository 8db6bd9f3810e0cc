"""Parquet files with encoded images in a column: binary, or {"bytes", "path"} as in Hugging Face datasets.

A row group is a part, because it is the smallest piece that can be read by itself. Rows are read one at a time, because
a few bytes of a file may encode the same large image in every row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.data.importing.lines import LONGEST_TEXT
from jclip.data.importing.parts import UNCAPTIONED, Found, Lost, Part, Reader, Reading
from jclip.data.importing.splits import others
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError, first_line
from jclip.extras import reported_extras
from jclip.io.files import check_utf8
from jclip.io.reading import LARGEST_PICTURE, TOO_LARGE, open_regular
from jclip.units import format_size

LARGEST_GROUP = 1 << 30
"""Maximum number of unpacked bytes of a column in a row group, unless it is compressed at most `PACKED` times."""

PACKED = 100
_LONG_TEXT = f"captions of more than {format_size(LONGEST_TEXT)}"


@dataclass(frozen=True)
class ParquetReader(Reader):
    """Files, in the order of their names.

    Attributes:
      picture, caption: columns; a caption may be a string or a list of strings.
      language_column: column of the language; None for `language`.
    """

    split: str = "train"
    picture: str = "image"
    caption: str = "caption"
    language_column: str | None = None
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        parts: list[Part] = []
        first = 0
        for file in self.files:
            stored = parquet_file(file)
            have = stored.schema_arrow.names
            for name in filter(None, (self.picture, self.caption, self.language_column)):
                if name not in have:
                    raise JclipError(
                        f"{file} has no column {name!r}, only {', '.join(map(repr, have[:9]))}: name it with --picture "
                        "or --caption"
                    )
            for group in range(stored.num_row_groups):
                check_packing(file, stored, group, (self.picture, self.caption))
                parts.append(_Part(self.split, self, file, group, first))
                first += stored.metadata.row_group(group).num_rows
        return parts


def open_parquet(source: Path, reading: Reading) -> ParquetReader:
    """Opens one or a folder of .parquet files. Raises JclipError if there is none, or pyarrow is not installed."""
    with reported_extras():
        import pyarrow.parquet  # noqa: F401
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
        left_out=others(source, files, "no .parquet file") if source.is_dir() else (),
    )


def parquet_file(file: Path) -> Any:
    """Opens a Parquet file with pyarrow. Raises JclipError if it is not one, or is incomplete."""
    import pyarrow
    import pyarrow.parquet

    check_utf8(file, "pyarrow")
    try:
        open_regular(file).close()
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise JclipError(f"{file} is not a complete Parquet file ({first_line(error)}): fetch it again") from None


def check_packing(file: Path, stored: Any, group: int, columns: Sequence[str]) -> None:
    """Raises JclipError if columns of a row group unpack to far more than images and captions do."""
    held = stored.metadata.row_group(group)
    for column in map(held.column, range(held.num_columns)):
        size, packed = column.total_uncompressed_size, column.total_compressed_size
        if column.path_in_schema.split(".")[0] in columns and size > max(LARGEST_GROUP, PACKED * packed):
            raise JclipError(
                f"{file}, row group {group}: column {column.path_in_schema} has {format_size(packed)} that unpack to "
                f"{format_size(size)}, too much for images: remove the file"
            )


def _rows(file: Path, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows as {column: array of length 1}."""
    import pyarrow

    try:
        for batch in parquet_file(file).iter_batches(1, row_groups=[group], columns=columns, use_threads=False):
            for row in range(batch.num_rows):
                values = (column.slice(row, 1) for column in batch.columns)
                unpacked = (
                    value.dictionary_decode() if isinstance(value, pyarrow.DictionaryArray) else value
                    for value in values
                )
                yield dict(zip(batch.schema.names, unpacked, strict=True))
    except (pyarrow.ArrowException, OSError) as error:
        raise JclipError(f"{file}, row group {group} is damaged ({first_line(error)}): fetch it again") from None


@dataclass(frozen=True)
class _Part:
    split: str
    reader: ParquetReader
    file: Path
    group: int
    first: int

    def records(self) -> Iterator[Found | Lost]:
        reader = self.reader
        columns = [name for name in (reader.picture, reader.caption, reader.language_column) if name]
        for number, row in enumerate(_rows(self.file, self.group, columns), self.first):
            place = f"{self.file.name}, row {number + 1}"
            found = self._record(row)
            yield Lost(place, found) if isinstance(found, str) else Found(place, found)

    def _record(self, row: dict[str, Any]) -> StoredPair | str:
        reader = self.reader
        if row[reader.picture].nbytes > LARGEST_PICTURE:
            return TOO_LARGE
        if row[reader.caption].nbytes > LONGEST_TEXT:
            return _LONG_TEXT
        row = {name: value[0].as_py() for name, value in row.items()}
        image = row[reader.picture]
        if isinstance(image, dict):
            image = image.get("bytes")
        if not isinstance(image, bytes):
            return "no bytes of an image"
        captions = row[reader.caption]
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, list) or not captions or not all(isinstance(each, str) for each in captions):
            return UNCAPTIONED
        language = str(row[reader.language_column] or "") if reader.language_column else reader.language
        return StoredPair(image, tuple(captions), (language,) * len(captions))
