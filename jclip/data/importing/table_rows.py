"""Reads rows of CSV and TSV files from any position, and reports faulty rows."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jclip.data.importing.lines import LONGEST_TEXT
from jclip.errors import JclipError, unreadable
from jclip.io.reading import open_regular
from jclip.units import format_size

SHORT = "the row has too few columns"
LONG = "the row has more columns than the header, for example because a text with a separator is not quoted"


@dataclass(frozen=True)
class Columns:
    """Layout of a file of rows.

    Attributes:
      names: columns to read: header names, or numbers from 1 if there is no header.
      separator: separator of columns.
      quoted: False if a quotation mark is an ordinary character.
      width: maximum number of columns; a longer row is at fault, and a blank one is skipped. None for any number.
      preamble: number of lines before the first row.
    """

    names: tuple[str, ...]
    separator: str
    quoted: bool = True
    width: int | None = None
    preamble: int = 0

    @property
    def header(self) -> bool:
        """True if the first row names the columns."""
        return not all(name.isdecimal() for name in self.names)


class TableRow(tuple[str, ...]):
    """Values of the requested columns; empty if the row is at fault.

    Attributes:
      number: number of the row's first line, from 1.
      offset: offset of its first byte.
      fault: reason why it cannot be used; empty if it can.
    """

    number: int
    offset: int
    fault: str


def rows(file: Path, columns: Columns, offset: int = 0, number: int = 1) -> Iterator[TableRow]:
    """Yields the rows of a file, from the one at byte `offset` and line `number`.

    Raises JclipError if a column is missing, a quotation mark is not closed, or the file is not UTF-8 text.
    """
    try:
        with open_regular(file) as stream:
            lines = _Lines(file, stream)
            quoting: Any = csv.QUOTE_MINIMAL if columns.quoted else csv.QUOTE_NONE
            reader = csv.reader(lines, delimiter=columns.separator, quoting=quoting)
            for _ in range(columns.preamble):
                next(lines, "")
            picks = _picks(file, columns, reader)
            lines.taken()
            if offset:
                lines.seek(offset, number)
            begin, line = lines.offset, lines.number
            for cells in reader:
                taken = lines.taken()
                if len(taken) > 1:
                    _check_quotes(file, columns, taken, line)
                if cells and (columns.width is None or any(map(str.strip, cells))):
                    yield _row(cells, picks, columns.width, begin, line)
                begin, line = lines.offset, lines.number
    except OSError as error:
        raise unreadable(file, error) from None
    except csv.Error as error:
        raise JclipError(f"{file}, line {lines.number}: {error}: correct it, or name another --separator") from None


def _row(cells: list[str], picks: list[int], width: int | None, offset: int, number: int) -> TableRow:
    fault = ""
    if len(cells) <= max(picks):
        fault = SHORT
    elif width is not None and any(map(str.strip, cells[width:])):
        fault = LONG
    row = TableRow("" if fault else cells[pick] for pick in picks)
    row.offset, row.number, row.fault = offset, number, fault
    return row


def _check_quotes(file: Path, columns: Columns, lines: list[str], number: int) -> None:
    """Checks a row of several lines: an unclosed quotation mark joins it with the rows that follow.

    A row of one line may have a misplaced mark, as in `"red" car`, which pandas accepts too.
    """
    try:
        for _ in csv.reader(lines, delimiter=columns.separator, strict=True):
            pass
    except csv.Error:
        raise JclipError(
            f"{file}, line {number}: a quotation mark opens here and is not closed, so that this row would contain the "
            f"next {len(lines) - 1} line(s): close it, or double it inside quotation marks"
        ) from None


class _Lines(Iterator[str]):
    """Lines of a stream, with the position of the next one."""

    def __init__(self, file: Path, stream: BinaryIO):
        self._file, self._stream = file, stream
        self.offset, self.number = 0, 1
        self._taken: list[str] = []

    def taken(self) -> list[str]:
        """Returns the lines since the last call."""
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
                f"{self._file}, line {self.number}: it has more than {format_size(LONGEST_TEXT)}, too long for a row: "
                "correct it"
            )
        try:
            text = data.decode("utf-8-sig" if self.offset == 0 else "utf-8")
        except UnicodeDecodeError:
            raise JclipError(f"{self._file}, line {self.number}: it is not UTF-8: save the file as UTF-8") from None
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
