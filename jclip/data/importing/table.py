"""CSV and TSV files with a path and a caption in each row, as spreadsheets write them and open_clip reads them.

Rows of one image become one record with several captions, so that the image is stored and decoded once. They need not
be adjacent.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jclip.data.importing.encodings import write_utf8
from jclip.data.importing.index import Index
from jclip.data.importing.parts import USUAL_PICTURE, Found, Lost, Part, Reader, Reading, cut
from jclip.data.importing.picture_paths import WAYS, PictureFinder, find_prefix
from jclip.data.importing.spreadsheets import find_layout
from jclip.data.importing.table_rows import Columns, TableRow, rows
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError, unreadable
from jclip.io.reading import LARGEST_PICTURE, Refused, open_regular, read_regular

MISSING = "the image's file is missing"
UNNAMED = "the row names no image"
TABLES = (".csv", ".tsv")
"""Extensions of a table in a folder of images."""
_HINTS = 5  # missing images per part for which the nearest name is searched; a report shows no more


@dataclass(frozen=True)
class TableReader(Reader):
    """File with paths and captions.

    Attributes:
      root: folder of the images; paths are relative to it.
      prefix: see `PictureFinder`.
      columns: path, caption, and the language if it has a column.
      language: language of the captions without such a column.
      encoding: Python's name of it; None if the file is read as it is, in UTF-8 with line feeds.
      layout: the layout in words.
    """

    file: Path = Path()
    root: Path = Path()
    prefix: str = ""
    split: str = "train"
    columns: Columns = Columns(("filepath", "title"), "\t")
    language: str = ""
    encoding: str | None = None
    layout: tuple[str, ...] = ()

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`. Records are in the order of their first rows."""
        text = self._text(workspace)
        if self.encoding is not None and not text.exists():
            write_utf8(self.file, self.encoding, text)
        table = Index.made(workspace / "rows", lambda: self._index(text))
        begins = Index.made(workspace / "groups", lambda: {"begin": self._begins(table["group"])})["begin"]
        sizes = np.full(len(begins) - 1, USUAL_PICTURE)
        return [_Part(self.split, self, workspace, start, stop) for start, stop in cut(sizes, shard_bytes)]

    def read_as(self, workspace: Path) -> tuple[str, ...]:
        """Describes how the source was read, see `Reader`."""
        ways = np.bincount(Index(workspace / "rows")["way"], minlength=len(WAYS)).tolist()
        found = [f"{count:,} rows: {way}" for way, count in zip(WAYS, ways, strict=True) if way and count]
        prefix = [f"{self.prefix} replaced by {self.root}"] if self.prefix else []
        return (*self.layout, *prefix, *found)

    def pictures(self) -> PictureFinder:
        """Returns the finder of images."""
        return PictureFinder(self.root, self.prefix)

    def rows(self, workspace: Path, offset: int = 0, number: int = 1) -> Iterator[TableRow]:
        """Yields the rows, from the one at byte `offset` and line `number`."""
        return rows(self._text(workspace), self.columns, offset, number)

    @staticmethod
    def _begins(groups: np.ndarray) -> np.ndarray:
        """Returns the start of each run of equal numbers, and the end."""
        return np.append(np.flatnonzero(np.diff(groups, prepend=-1)), len(groups))

    def _text(self, workspace: Path) -> Path:
        return self.file if self.encoding is None else workspace / f"{self.file.name}.utf-8"

    def _index(self, text: Path) -> dict[str, np.ndarray]:
        """Returns the offset of each row and its group; groups are in the order of their first rows."""
        keys, offsets, numbers, ways = array("q"), array("q"), array("q"), array("q")
        pictures = self.pictures()
        for row in rows(text, self.columns):
            key, way = f"\0{row.number}", ""
            if row[0].strip():
                path, way = pictures.find(row[0])
                key = row[0] if path is None else str(path)
            keys.append(
                int.from_bytes(
                    hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(),
                    "little",
                    signed=True,
                )
            )
            offsets.append(row.offset)
            numbers.append(row.number)
            ways.append(WAYS.index(way))
        _, first, group = np.unique(np.array(keys, np.int64), return_index=True, return_inverse=True)
        groups = first[group]
        order = np.argsort(groups, kind="stable")
        columns = {"group": groups, "offset": np.array(offsets), "number": np.array(numbers), "way": np.array(ways)}
        return {name: column[order] for name, column in columns.items()}


def open_table(source: Path, reading: Reading) -> TableReader:
    """Opens a table, or the only one in a folder.

    Raises JclipError if it is missing, is not a text table, or its columns or encoding cannot be detected.
    """
    file = only_table(source) if source.is_dir() else source
    if file is None:
        raise JclipError(f"{source} has no table, or several: name a CSV or TSV file")
    try:
        open_regular(file).close()
    except FileNotFoundError:
        raise JclipError(f"there is no file {file}: name a CSV or TSV file") from None
    except OSError as error:
        raise unreadable(file, error) from None
    root = file.parent if reading.root is None else Path(reading.root)
    if not root.is_dir():
        raise JclipError(f"--root {root} is not a folder: name the folder to which the images' paths are relative")
    layout = find_layout(file, lambda name: PictureFinder(root).find(name)[0] is not None, reading)
    return TableReader(
        PAIRS,
        (file,),
        file=file,
        root=root,
        prefix=find_prefix(root, layout.names) if reading.root is not None else "",
        split=reading.split(),
        columns=layout.columns,
        language=reading.language or "",
        encoding=layout.encoding if layout.copied else None,
        layout=layout.description,
    )


def only_table(folder: Path) -> Path | None:
    """Returns the only table in a folder; None if it has none or several."""
    found = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in TABLES and not file.name.startswith(".") and not file.name.endswith("_imgs.tsv")
    ]
    return found[0] if len(found) == 1 and found[0].is_file() else None


@dataclass(frozen=True)
class _Part:
    split: str
    reader: TableReader
    workspace: Path
    start: int
    stop: int

    def records(self) -> Iterator[Found | Lost]:
        begins, table = Index(self.workspace / "groups")["begin"], Index(self.workspace / "rows")
        pictures, hints = self.reader.pictures(), _HINTS
        for picture in range(self.start, self.stop):
            span = range(int(begins[picture]), int(begins[picture + 1]))
            found: list[TableRow] = []
            for n in span:
                row = next(self.reader.rows(self.workspace, int(table["offset"][n]), int(table["number"][n])))
                if row.fault or not row[0].strip():
                    yield Lost(self._place(row), row.fault or UNNAMED)
                else:
                    found.append(row)
            if not found:
                continue
            path, _ = pictures.find(found[0][0])
            if path is None:
                place, hints = f"{self._place(found[0])}: {found[0][0][:200]}", hints - 1
                hint = f" ({pictures.hint(found[0][0])})" if hints >= 0 else ""
                yield Lost(place + hint, MISSING, len(found))
                continue
            try:
                image = read_regular(path, LARGEST_PICTURE)
            except Refused as error:
                yield Lost(f"{self._place(found[0])}: {found[0][0][:200]}", error.reason, len(found))
                continue
            except OSError as error:
                raise unreadable(f"{self._place(found[0])}: {path}", error) from None
            languages = tuple(row[2] if len(row) > 2 else self.reader.language for row in found)
            yield Found(self._place(found[0]), StoredPair(image, tuple(row[1] for row in found), languages))

    def _place(self, row: TableRow) -> str:
        return f"{self.reader.file.name}, line {row.number}"
