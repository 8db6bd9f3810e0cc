"""Parallel text: JSON lines like TSL2019's, TSV, and Moses or OPUS file pairs with one sentence a line."""

import glob
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jclip.data.importing.index import Index
from jclip.data.importing.lines import Line, line_starts, object_of, scan, text_of
from jclip.data.importing.parts import Found, Lost, Part, Reader, Reading, cut
from jclip.data.importing.table_rows import Columns, rows
from jclip.data.sources.kinds import PARALLEL
from jclip.data.sources.records import Translation
from jclip.errors import JclipError

_HALF = "only one of the two texts"


@dataclass(frozen=True)
class LinesReader(Reader):
    """One file, or parallel files, cut into ranges of lines. `fields` are those of JSON lines, English first."""

    split: str = "train"
    language: str = ""
    fields: tuple[str, str] = ("english", "chinese")

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`. Parallel files must have the same number of lines."""
        starts = [
            Index.made(workspace / f"lines-{number}", partial(_line_starts, file))["start"]
            for number, file in enumerate(self.files)
        ]
        for file, found in zip(self.files, starts, strict=True):
            if len(found) != len(starts[0]):
                raise JclipError(
                    f"{self.files[0]} has {len(starts[0]) - 1} lines, {file} {len(found) - 1}: they do not belong "
                    "together, or one is incomplete; fetch them again"
                )
        return [
            _Part(self.split, self, start, stop, tuple(int(found[start]) for found in starts))
            for start, stop in cut(np.diff(starts[0]), shard_bytes)
        ]


@dataclass(frozen=True)
class _Part:
    split: str
    reader: LinesReader
    start: int
    stop: int
    offsets: tuple[int, ...]

    def records(self) -> Iterator[Found | Lost]:
        count, first = self.stop - self.start, self.start + 1
        files = self.reader.files
        if len(files) == 1:
            for line in scan(files[0], self.offsets[0], first, count):
                yield self._object(files[0], line)
            return
        streams = [
            {line.number: line for line in scan(file, offset, first, count)}
            for file, offset in zip(files, self.offsets, strict=True)
        ]
        for number in range(first, first + count):
            english, other = (stream.get(number) for stream in streams)
            place = f"{files[0].name}, line {number}"
            if english is None and other is None:
                continue
            if english is None or other is None:
                yield Lost(place, _HALF)
                continue
            found = Translation(text_of(files[0], english), text_of(files[1], other), self.reader.language)
            yield Found(place, found)

    def _object(self, file: Path, line: Line) -> Found | Lost:
        place = f"{file.name}, line {line.number}"
        fields = object_of(file, line, self.reader.fields)
        english, other = (fields[name] for name in self.reader.fields)
        if not isinstance(english, str) or not isinstance(other, str):
            return Lost(place, _HALF)
        return Found(place, Translation(english, other, self.reader.language))


def open_json_lines(source: Path, reading: Reading) -> LinesReader:
    """Opens JSON lines; by default with TSL2019's fields, "english" and "chinese".

    Raises JclipError if the file does not exist.
    """
    _check_exists(source)
    fields = (reading.english or "english", reading.other or "chinese")
    language = reading.language or ("zh" if fields[1] == "chinese" else "")
    return LinesReader(PARALLEL, (source,), False, (), reading.split(), language, fields)


def open_moses(source: Path, reading: Reading) -> LinesReader:
    """Opens SRC.en and SRC.LANGUAGE, as in OPUS's archives.

    Raises JclipError if one is missing, or the language cannot be detected.
    """
    english = source.with_name(f"{source.name}.en")
    language = reading.language
    if language is None:
        # OPUS also has files of ids and scores beside the texts.
        ends = [file.suffix[1:] for file in source.parent.glob(f"{glob.escape(source.name)}.*")]
        others = sorted(end for end in ends if end not in ("en", "ids", "scores", "xml") and end.isalpha())
        if len(others) != 1:
            found = ", ".join(others) or "none"
            raise JclipError(f"{source}.LANGUAGE: expected one file, found {found}: choose one, such as --language zh")
        language = others[0]
    other = source.with_name(f"{source.name}.{language}")
    for file in (english, other):
        _check_exists(file)
    return LinesReader(PARALLEL, (english, other), False, (), reading.split(), language)


@dataclass(frozen=True)
class TsvReader(Reader):
    """File with a translation in each row. `columns` are English, other, and the language if it has a column."""

    split: str = "train"
    columns: Columns = Columns(("1", "2"), "\t", False)
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        table = Index.made(workspace / "rows", self._index)
        sizes = np.diff(table["offset"], append=self.files[0].stat().st_size)
        return [
            _Rows(self.split, self, int(table["offset"][start]), int(table["number"][start]), stop - start)
            for start, stop in cut(sizes, shard_bytes)
        ]

    def _index(self) -> dict[str, np.ndarray]:
        offsets, numbers = array("q"), array("q")
        for row in rows(self.files[0], self.columns):
            offsets.append(row.offset)
            numbers.append(row.number)
        return {"offset": np.array(offsets), "number": np.array(numbers)}


@dataclass(frozen=True)
class _Rows:
    split: str
    reader: TsvReader
    offset: int
    number: int
    count: int

    def records(self) -> Iterator[Found | Lost]:
        file = self.reader.files[0]
        found = rows(file, self.reader.columns, self.offset, self.number)
        for _, row in zip(range(self.count), found, strict=False):
            place = f"{file.name}, line {row.number}"
            if row.fault:
                yield Lost(place, row.fault)
                continue
            language = row[2] if len(row) > 2 else self.reader.language
            yield Found(place, Translation(row[0], row[1], language))


def open_parallel_tsv(source: Path, reading: Reading) -> TsvReader:
    """Opens a file of rows; by default without header and quoting, and English first.

    Raises JclipError if the file does not exist, or columns are named partly by number.
    """
    _check_exists(source)
    names = [reading.english or "1", reading.other or "2"]
    if reading.language_column:
        names.append(reading.language_column)
    if len({name.isdecimal() for name in names}) > 1:
        raise JclipError(f"columns {', '.join(names)}: name all by the header, or all by number")
    separator = reading.separator or "\t"
    columns = Columns(tuple(names), separator, quoted=separator != "\t")
    return TsvReader(PARALLEL, (source,), False, (), reading.split(), columns, reading.language or "")


def _line_starts(file: Path) -> dict[str, np.ndarray]:
    """Returns the offset of each line, and the end of the file."""
    return {"start": np.array(array("q", line_starts(file)))}


def _check_exists(file: Path) -> None:
    if not file.is_file():
        raise JclipError(f"there is no file {file}: fetch it, or name another")
