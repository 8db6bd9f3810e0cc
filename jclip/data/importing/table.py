"""CSV and TSV files with a path and a caption in each row, as open_clip reads them (`--dataset-type csv`).

Rows of one path become one record with several captions, which is how a picture that stands in five rows is stored, and
decoded, once. Such rows need not be neighbours.
"""

import csv
import errno
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jclip.data.importing.index import Index
from jclip.data.importing.lines import LONGEST_TEXT
from jclip.data.importing.parts import USUAL_PICTURE, Found, Lost, Part, Reader, Reading, cut, numbered
from jclip.data.kinds import PAIRS
from jclip.errors import JclipError, unreadable
from jclip.files import LARGEST_PICTURE, NotTaken, open_regular, read_regular, said_size

MISSING = "the picture's file is missing"
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Columns:
    """How a file of rows is laid out.

    Attributes:
      names: of the columns that are read, in the header; or their numbers from 1, where there is no header.
      separator: of columns.
      quoted: False where a quotation mark is a letter like others.
    """

    names: tuple[str, ...]
    separator: str
    quoted: bool = True

    @property
    def header(self) -> bool:
        """Whether the first row names the columns."""
        return not all(name.isdecimal() for name in self.names)


class Row(tuple[str, ...]):
    """The columns that were asked for.

    Attributes:
      number: of the row's first line, from 1.
      offset: of its first byte.
    """

    number: int
    offset: int


def rows(file: Path, columns: Columns, offset: int = 0, number: int = 1) -> Iterator[Row]:
    """The rows of a file, from one whose first byte and line are known.

    Raises:
      JclipError: a column is missing, a row is short, a quotation mark is not closed, or the file is no UTF-8 text.
    """
    try:
        with open_regular(file) as stream:
            lines = _Lines(file, stream)
            if columns.quoted:
                reader = csv.reader(lines, delimiter=columns.separator)
            else:
                reader = csv.reader(lines, delimiter=columns.separator, quoting=csv.QUOTE_NONE)
            picks = _picks(file, columns, reader)
            lines.taken()
            if offset:
                lines.seek(offset, number)
            begin, line = lines.offset, lines.number
            for cells in reader:
                taken = lines.taken()
                if len(taken) > 1:
                    _check_quotes(file, columns, taken, line)
                if cells:
                    try:
                        row = Row(cells[pick] for pick in picks)
                    except IndexError:
                        raise JclipError(
                            f"{file}, line {line}: {len(cells)} column(s), but column {max(picks) + 1} is wanted: mend "
                            "it, or name another --separator"
                        ) from None
                    row.offset, row.number = begin, line
                    yield row
                begin, line = lines.offset, lines.number
    except OSError as error:
        raise unreadable(file, error) from None
    except csv.Error as error:
        raise JclipError(f"{file}, line {lines.number}: {error}: mend it, or name another --separator") from None


def _check_quotes(file: Path, columns: Columns, lines: list[str], number: int) -> None:
    """Checks a row of several lines: a quotation mark that is not closed makes one of it and the rows that follow.

    Rows of one line may have what stands on no ground, as `"red" car`, which pandas takes too.
    """
    try:
        for _ in csv.reader(lines, delimiter=columns.separator, strict=True):
            pass
    except csv.Error:
        raise JclipError(
            f"{file}, line {number}: a quotation mark opens here and is not closed, which would swallow the next "
            f"{len(lines) - 1} line(s): close it, or write it twice inside quotation marks"
        ) from None


class _Lines(Iterator[str]):
    """The lines of a stream, and where the next one begins."""

    def __init__(self, file: Path, stream: BinaryIO):
        self._file, self._stream = file, stream
        self.offset, self.number = 0, 1
        self._taken: list[str] = []

    def taken(self) -> list[str]:
        """The lines since this was asked last."""
        taken, self._taken = self._taken, []
        return taken

    def seek(self, offset: int, number: int) -> None:
        self._stream.seek(offset)
        self.offset, self.number = offset, number

    def __next__(self) -> str:
        data = self._stream.readline(LONGEST_TEXT + 1)
        if not data:
            raise StopIteration
        if len(data) > LONGEST_TEXT:
            raise JclipError(
                f"{self._file}, line {self.number}: it has more than {said_size(LONGEST_TEXT)}, too long for a row: "
                "mend it"
            )
        try:
            text = data.decode("utf-8-sig" if self.offset == 0 else "utf-8")
        except UnicodeDecodeError:
            raise JclipError(
                f"{self._file}, line {self.number}: it is not UTF-8 text: save the file as UTF-8"
            ) from None
        self.offset, self.number = self.offset + len(data), self.number + 1
        self._taken.append(text)
        return text


def _picks(file: Path, columns: Columns, reader: Iterator[list[str]]) -> list[int]:
    if not columns.header:
        if "0" in columns.names:
            raise JclipError("column 0 is not possible: columns are counted from 1")
        return [int(name) - 1 for name in columns.names]
    header = next(reader, [])
    for name in columns.names:
        if name not in header:
            raise JclipError(
                f"{file}, line 1: there is no column {name!r}, only {', '.join(map(repr, header[:9]))}: name the "
                "columns with options, or the --separator"
            )
    return [header.index(name) for name in columns.names]


@dataclass(frozen=True)
class TableReader(Reader):
    """A file with paths and captions.

    Attributes:
      file: it; paths in it are relative to its folder.
      split: that it becomes.
      columns: path, caption, and the language where it has a column.
      language: of the captions, where it has none.
    """

    file: Path = Path()
    split: str = "train"
    columns: Columns = Columns(("filepath", "title"), "\t")
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """See `Reader`. Rows of one path are brought together; the first of them gives its place in the order."""
        table = Index.made(workspace / "rows", self._index)
        begins = Index.made(workspace / "groups", lambda: {"begin": _begins(table["group"])})["begin"]
        sizes = np.full(len(begins) - 1, USUAL_PICTURE)
        return [_Part(self, workspace, start, stop) for start, stop in cut(sizes, shard_bytes)]

    def _index(self) -> dict[str, np.ndarray]:
        """Where each row begins and which group it belongs to, groups in the order of their first rows."""
        keys, offsets, numbers = array("q"), array("q"), array("q")
        for row in rows(self.file, self.columns):
            digest = hashlib.blake2b(row[0].encode(), digest_size=8).digest()
            keys.append(int.from_bytes(digest, "little", signed=True))
            offsets.append(row.offset)
            numbers.append(row.number)
        _, first, group = np.unique(np.array(keys, np.int64), return_index=True, return_inverse=True)
        groups = first[group]
        order = np.argsort(groups, kind="stable")
        return {"group": groups[order], "offset": np.array(offsets)[order], "number": np.array(numbers)[order]}


def _begins(groups: np.ndarray) -> np.ndarray:
    """Where each run of equal numbers begins, and the end."""
    return np.append(np.flatnonzero(np.diff(groups, prepend=-1)), len(groups))


def open_table(source: Path, reading: Reading) -> TableReader:
    """Opens such a file: by default, as open_clip does, tab-separated with columns "filepath" and "title".

    Raises:
      JclipError: it is missing.
    """
    if not source.is_file():
        raise JclipError(f"there is no file {source}: name a CSV or TSV file")
    names = [reading.picture or "filepath", reading.caption or "title"]
    if reading.language_column:
        names.append(reading.language_column)
    columns = Columns(tuple(names), reading.separator or "\t")
    return TableReader(PAIRS, (source,), False, (), source, reading.split(), columns, reading.language or "")


@dataclass(frozen=True)
class _Part:
    reader: TableReader
    workspace: Path
    start: int
    stop: int

    @property
    def split(self) -> str:
        return self.reader.split

    def records(self) -> Iterator[Found | Lost]:
        begins, table = Index(self.workspace / "groups")["begin"], Index(self.workspace / "rows")
        file, columns = self.reader.file, self.reader.columns
        for picture in range(self.start, self.stop):
            span = range(int(begins[picture]), int(begins[picture + 1]))
            found = [next(rows(file, columns, int(table["offset"][n]), int(table["number"][n]))) for n in span]
            place = f"{file.name}, line {found[0].number}"
            path = file.parent / found[0][0]
            try:
                image = read_regular(path, LARGEST_PICTURE)
            except NotTaken as error:
                yield Lost(f"{place}: {found[0][0][:200]}", error.reason, len(found))
                continue
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_FILE:
                    raise JclipError(
                        f"{place}: {path} cannot be read ({error.strerror}): look after the disk, and start again"
                    ) from None
                yield Lost(f"{place}: {found[0][0][:200]}", MISSING, len(found))
                continue
            languages = tuple(row[2] if len(row) > 2 else self.reader.language for row in found)
            yield Found(place, numbered(image, tuple(row[1] for row in found), picture, languages))
