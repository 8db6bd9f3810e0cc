"""Index: L2-normalised vectors of images and texts, with the table of their paths. `jclip embed` writes it.

index = Index.open("photos.index")
for first, block_nd in index.blocks():  # memory-mapped float16
    ...
index.entries_of([3, 5])

docs/index-format.md describes the files. All of them are untrusted: a damaged one raises JclipError.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.io.json_files import entry, read_object
from jclip.search.entries import SELECT, Entry, entry_of
from jclip.search.schema import ENTRIES, damaged, in_parts, open_entries, reporting_damage
from jclip.search.segments import DTYPE, Segments, read_segments

FACTS = "index.json"
FORMAT = 1
_LARGEST_FACTS = 1 << 20  # bytes
_LARGEST_DIM = 1 << 16
_TRIES = 5


class Identified(Protocol):
    """Part of a model that an index compares."""

    @property
    def identity(self) -> str:
        """Digest of the contents of the model's bundle."""


class Condition(Protocol):
    """Condition on entries, such as a `Filter`."""

    def where(self) -> tuple[str, Sequence[Any]]:
        """Returns an SQL condition on the columns of the table of entries, and the values of its parameters "?"."""


@dataclass(frozen=True)
class IndexFacts:
    """Facts of an index, from its index.json.

    Attributes:
      model_identity: `identity` of the model that made the vectors.
      model_name: name of the model, for people.
      model_source: the model's path or address when the index was made.
      dim: size of a vector.
      orientation: "apply" if images were rotated by their EXIF orientation, else "ignore".
      created_by: program that wrote the index, such as "jclip 0.1.0".
      dtype: "float16".
    """

    model_identity: str
    model_name: str
    model_source: str
    dim: int
    orientation: Orientation
    created_by: str
    dtype: str = "float16"

    def check_model(self, identity: str, place: object, remedy: str) -> None:
        """Raises JclipError, with the remedy, if another model made the vectors of `place`."""
        if identity != self.model_identity:
            made = f"{place} was made with another model ({self.model_name}, from {self.model_source})"
            raise JclipError(f"{made}: {remedy}")


def read_facts(folder: Path) -> IndexFacts:
    """Reads the facts of an index. Raises JclipError if the folder is not an index, or of a newer format."""
    file = folder / FACTS
    if not file.is_file():
        why = f"it has no {FACTS}" if folder.is_dir() else "there is no such folder"
        raise JclipError(f"{folder} is not an index: {why}. Make one: jclip embed SOURCE OUT --model BUNDLE")
    record = read_object(file, largest=_LARGEST_FACTS)
    number = entry(record, "format", int, file)
    if number != FORMAT:
        newer = "install a newer jclip" if number > FORMAT else "run jclip embed again"
        raise JclipError(f"{file}: format is {number}, but this jclip reads {FORMAT}: {newer}")
    model = entry(record, "model", dict, file)
    facts = IndexFacts(
        **{f"model_{name}": entry(model, name, str, file) for name in ("identity", "name", "source")},
        dim=entry(record, "dim", int, file),
        orientation=entry(record, "orientation", str, file),  # type: ignore[arg-type]  # checked below
        created_by=entry(record, "created_by", str, file),
        dtype=entry(record, "dtype", str, file),
    )
    if not 1 <= facts.dim <= _LARGEST_DIM:
        raise JclipError(f"{file}: dim is {facts.dim}, but must be 1 to {_LARGEST_DIM}: run jclip embed again")
    if facts.dtype != DTYPE.name:
        raise JclipError(f"{file}: dtype is {facts.dtype!r}, but must be {DTYPE.name!r}: run jclip embed again")
    if facts.orientation not in get_args(Orientation):
        allowed = " or ".join(map(repr, get_args(Orientation)))
        raise JclipError(f"{file}: orientation is {facts.orientation!r}, but must be {allowed}: run jclip embed again")
    return facts


class Index:
    """An opened index: a snapshot, which stays valid while `jclip embed --update` replaces it.

    It may be used from several threads. It is a context manager, which closes it.

    Attributes:
      folder: path.
      facts: the model, and how it was used.
      vectors: number of vectors, unused ones of dropped entries included. They are numbered from 0.
    """

    def __init__(self, folder: Path, facts: IndexFacts, connection: sqlite3.Connection, segments: Segments):
        self.folder, self.facts = folder, facts
        self.vectors = len(segments)
        self._connection, self._segments = connection, segments
        self._lock = threading.Lock()
        self._count = int(self._rows("SELECT count(*) FROM entries")[0][0])

    @classmethod
    def open(cls, folder: str | Path) -> "Index":
        """Opens an index. Raises JclipError if the folder is not an index, is damaged, or is of a newer format."""
        folder = Path(folder).absolute()
        for left in reversed(range(_TRIES)):
            facts = read_facts(folder)
            file = folder / ENTRIES
            connection = open_entries(file)
            try:
                with reporting_damage(file):
                    table = connection.execute("SELECT number, first, count FROM segments ORDER BY first").fetchall()
                return cls(folder, facts, connection, read_segments(folder, table, facts.dim))
            except FileNotFoundError as error:
                connection.close()
                if not left:  # otherwise an update has replaced the files meanwhile
                    raise damaged(Path(error.filename), "it is missing") from None
            except BaseException:
                connection.close()
                raise
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Closes the database. Blocks of vectors stay readable."""
        self._connection.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Returns the number of entries."""
        return self._count

    def check_model(self, model: Identified) -> None:
        """Raises JclipError if another model made the vectors."""
        self.facts.check_model(model.identity, self.folder, "use that one, or run jclip embed again with this one")

    def blocks(self, rows: int = 65_536) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (first, vectors): at most `rows` consecutive vectors, float16 (n, dim), memory-mapped.

        Row i is vector first + i. Unused vectors are among them.
        """
        return self._segments.blocks(rows)

    def vector(self, number: int) -> np.ndarray:
        """Returns a vector, float16 (dim,). Raises JclipError if there is no such vector."""
        if not 0 <= number < self.vectors:
            raise self._no_vector(number)
        return self._segments.one(number)

    def vectors_at(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns vectors, float16 (n, dim). Raises JclipError if there is no such vector."""
        numbers_n = np.asarray(numbers, np.int64).reshape(-1)
        outside = numbers_n[(numbers_n < 0) | (numbers_n >= self.vectors)]
        if len(outside):
            raise self._no_vector(int(outside[0]))
        return self._segments.at(numbers_n)

    def entry(self, id: int) -> Entry:
        """Returns an entry by its id. Raises JclipError if there is none."""
        return self.entries([id])[0]

    def entries(self, ids: Iterable[int]) -> list[Entry]:
        """Returns entries by their ids, in the same order. Raises JclipError if there is none of an id."""
        ids = [int(id) for id in ids]
        found = {each.id: each for each in self._entries_where("entries.id IN (?)", ids)}
        missing = next((id for id in ids if id not in found), None)
        if missing is not None:
            raise JclipError(f"{self.folder} has no entry {missing}: choose another, or search again")
        return [found[id] for id in ids]

    def entries_of(self, vectors: Iterable[int]) -> dict[int, list[Entry]]:
        """Returns the entries of vectors: {vector: entries of this content, by id}; none for an unused vector."""
        numbers = [int(number) for number in vectors]
        found: dict[int, list[Entry]] = {number: [] for number in numbers}
        for each in self._entries_where("entries.vector IN (?) ORDER BY entries.id", list(found)):
            found[each.vector].append(each)
        return found

    def all_entries(self) -> Iterator[Entry]:
        """Yields all entries by id, some at a time."""
        after = -(2**63)
        while some := self._checked(f"{SELECT} WHERE entries.id > ? ORDER BY entries.id LIMIT 1000", (after,)):
            yield from some
            after = some[-1].id

    def select(self, condition: Condition | None = None) -> np.ndarray:
        """Returns the numbers of the vectors whose entries match a condition, sorted int64; None matches all."""
        where, values = condition.where() if condition else ("1", ())
        statement = f"SELECT DISTINCT vector FROM entries WHERE {where} ORDER BY vector"
        rows = self._rows(statement, values)
        try:
            numbers = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        except (TypeError, ValueError, OverflowError):
            raise damaged(self.folder / ENTRIES, "a number of a vector is not a number") from None
        if len(numbers) and not (numbers[0] >= 0 and numbers[-1] < self.vectors):
            raise damaged(self.folder / ENTRIES, "it names a vector that does not exist")
        return numbers

    def select_entries(self, condition: Condition | None = None, offset: int = 0, limit: int = -1) -> list[Entry]:
        """Returns the entries that match a condition, by id: at most `limit` after the first `offset`; -1 for all."""
        where, values = condition.where() if condition else ("1", ())
        # The condition names columns of the table of entries alone, without its name.
        within = f"entries.id IN (SELECT id FROM entries WHERE {where} ORDER BY id LIMIT ? OFFSET ?)"
        return self._checked(f"{SELECT} WHERE {within} ORDER BY entries.id", (*values, limit, offset))

    def skipped(self) -> list[tuple[bytes, str, str]]:
        """Returns (path, reason, detail) of each image that could not be read, by path."""
        rows = self._rows("SELECT path, reason, detail FROM skipped ORDER BY path")
        if not all(isinstance(row[0], bytes) and all(isinstance(each, str) for each in row[1:]) for row in rows):
            raise damaged(self.folder / ENTRIES, "the table of skipped images holds a wrong value")
        return rows

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Returns the rows of an SQL query of jclip's own, such as one that lists folders or values of `meta`.

        Their values are untrusted: of any type. Raises JclipError if the database is damaged.
        """
        return self._rows(statement, values)

    def _entries_where(self, where: str, numbers: list[int]) -> list[Entry]:
        file = self.folder / ENTRIES
        with reporting_damage(file), self._lock:
            return [
                self._known(entry_of(row)) for row in in_parts(self._connection, f"{SELECT} WHERE {where}", numbers)
            ]

    def _checked(self, statement: str, values: Sequence[Any]) -> list[Entry]:
        rows = self._rows(statement, values)
        with reporting_damage(self.folder / ENTRIES):
            return [self._known(entry_of(row)) for row in rows]

    def _known(self, found: Entry) -> Entry:
        if found.vector >= self.vectors:
            raise sqlite3.DatabaseError(f"entry {found.id} names a vector that does not exist")
        return found

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with reporting_damage(self.folder / ENTRIES), self._lock:
            return self._connection.execute(statement, tuple(values)).fetchall()

    def _no_vector(self, number: int) -> JclipError:
        return JclipError(f"{self.folder} has no vector {number}: it has {self.vectors}, numbered from 0")
