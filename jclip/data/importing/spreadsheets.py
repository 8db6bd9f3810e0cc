"""Detects the layout of tables: encoding, separator, the line "sep=;", header, columns."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jclip.data.importing.columns import find_columns, named, position
from jclip.data.importing.encodings import (
    decoded,
    find_encoding,
    first_telling,
    has_only_returns,
    sample,
    shown_encoding,
)
from jclip.data.importing.parts import Reading
from jclip.data.importing.table_rows import Columns
from jclip.errors import JclipError

_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "vertical bars"}
_ROWS = 200  # maximum number of rows that are read to detect the layout


@dataclass(frozen=True)
class TableLayout:
    """Layout of a table.

    Attributes:
      encoding: Python's name of the encoding.
      copied: True if the table is read from a copy in UTF-8 with line feeds.
      columns: columns of images, of captions, and of languages if there is one.
      names: values of the image column, in the first rows.
      description: the layout in words.
    """

    encoding: str
    copied: bool
    columns: Columns
    names: tuple[str, ...]
    description: tuple[str, ...]


def find_layout(file: Path, exists: Callable[[str], bool], reading: Reading) -> TableLayout:
    """Returns the layout of a table with images and captions.

    Raises JclipError if it is not a text table, or if part of its layout cannot be detected; the message then names the
    option to give.

    Args:
      exists: returns True for the name of an image's file.
      reading: the user's options; numbers name columns from 1 if there is no header.
    """
    data, whole = sample(file)
    if not data.strip():
        raise JclipError(f"{file} is empty: name a table with a path and a caption in each row")
    telling, ends = (data, whole) if whole else first_telling(file, data)
    found = find_encoding(telling, str(file), reading.encoding, ends)
    try:
        text = decoded(data, found, whole)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise JclipError(f"{file}, line {line}: it is not {shown_encoding(found)}: give another --encoding") from None
    returns = has_only_returns(text)
    text = text.replace("\r", "\n") if returns else text
    declared, text = _declared(text)
    given = [name for name in (reading.picture, reading.caption, reading.language_column) if name is not None]
    numbers = [name for name in given if name.isdecimal()]
    wanted = [name for name in given if not name.isdecimal()]
    if numbers and wanted:
        raise JclipError(f"columns {', '.join(numbers + wanted)}: name all by the header, or all by number")
    if "0" in numbers:
        raise JclipError("column 0 is not possible: columns are counted from 1")
    most = max(map(int, numbers), default=2)
    chosen = reading.separator or declared or _separator(file, text, whole, wanted, most)
    rows = _rows(text, whole, chosen) or [[""]]
    names, names_said = _names(file, rows, exists, reading)
    columns = Columns(names, chosen, preamble=int(declared is not None))
    lengths = [len(row) for row in rows]
    columns = replace(columns, width=lengths[0] if columns.header else max(set(lengths), key=lengths.count))
    at = rows[0].index(names[0]) if columns.header else int(names[0]) - 1
    pictures = tuple(row[at] for row in rows[columns.header :] if at < len(row))
    how = _SEPARATORS.get(chosen, repr(chosen))
    said = (f"{file.name}: {shown_encoding(found)}, columns separated by {how}", names_said)
    return TableLayout(found, found != "utf-8" or returns, columns, pictures, said)


def _declared(text: str) -> tuple[str | None, str]:
    """Returns the separator of a first line "sep=;", as Excel writes it, and the text after that line."""
    line, _, rest = text.partition("\n")
    bare = line.strip("\r\"' ")
    if len(bare) == 5 and bare.lower().startswith("sep="):
        return bare[4], rest
    if line.rstrip("\r").lower() == "sep=\t":
        return "\t", rest
    return None, text


def _rows(text: str, whole: bool, separator: str) -> list[list[str]]:
    """Returns the first rows that are not blank, up to one that cannot be parsed with this separator."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
            if len(rows) > _ROWS:
                return rows
    except csv.Error:
        return rows
    return rows if whole else rows[:-1]


def _separator(file: Path, text: str, whole: bool, wanted: Sequence[str], most: int) -> str:
    """Returns the separator that finds the most named columns and, among these, the most rows that fit the first."""
    best: tuple[tuple[float, float], str] | None = None
    for separator in _SEPARATORS:
        rows = _rows(text, whole, separator)
        if not rows or len(rows[0]) < most:
            continue
        known = sum(position(rows[0], name) is not None for name in wanted) + sum(named(rows[0]))
        like = sum(_length(row) <= len(rows[0]) and len(row) >= most for row in rows) / len(rows)
        score = (float(known), like)
        if best is None or score > best[0]:
            best = (score, separator)
    if best is None:
        first = text.partition("\n")[0].strip()[:60]
        raise JclipError(
            f"{file}, line 1: {first!r} has fewer than {most} columns with tabs, semicolons, commas or bars as "
            "separators: give the --separator, or name a table with a path and a caption in each row"
        )
    return best[1]


def _length(row: Sequence[str]) -> int:
    """Returns the number of columns up to the last that is not empty."""
    return max((number for number, cell in enumerate(row, 1) if cell.strip()), default=0)


def _names(
    file: Path, rows: Sequence[Sequence[str]], exists: Callable[[str], bool], reading: Reading
) -> tuple[tuple[str, ...], str]:
    """Returns the names of the columns to read, numbers if there is no header; and how they were found, in words."""
    picture, caption, language = reading.picture, reading.caption, reading.language_column
    more = () if language is None else (language,)
    if picture is not None and caption is not None and picture.isdecimal() and caption.isdecimal():
        return (picture, caption, *more), f"images from column {picture}, captions from column {caption}"
    if any(name is not None and name.isdecimal() for name in (picture, caption, language)):
        raise JclipError(f"{file}: only one column is named by number: give both --picture and --caption by number")
    found = find_columns(rows, picture, caption, exists, str(file))
    columns = [found.picture.column, found.caption.column]
    if language is not None:
        index = position(rows[0], language) if found.header else None
        if index is None:
            raise JclipError(f"{file} has no column {language!r}: name one that it has with --language-column")
        columns.append(index)
    names = tuple(rows[0][n] if found.header else f"{n + 1}" for n in columns)
    shown = [repr(name) if found.header else f"{name} (there is no header)" for name in names]
    said = f"images from column {shown[0]}, {found.picture.why}; captions from column {shown[1]}, {found.caption.why}"
    return names, said
