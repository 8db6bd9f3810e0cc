"""Files of compiled programs, one a line. Several processes may add to a file at the same time."""

import fcntl
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from jclip.accelerators.compiler import CompilerFailed
from jclip.console import Console
from jclip.io.files import whole_file

K = TypeVar("K", bound=Any)
V = TypeVar("V", bound=Any)


@dataclass(frozen=True)
class Records(Generic[K, V]):
    """File of records. A record is a key and a value, both dataclasses, and its line has the fields of both.

    Attributes:
      file: the file. It need not exist.
      key: class of the keys, which can be sorted.
      value: returns a value from its fields, as they are in JSON.
    """

    file: Path
    key: type[K]
    value: Callable[..., V]

    def read(self) -> dict[K, V]:
        """Returns the records; none if the file does not exist."""
        if not self.file.exists():
            return {}
        rows = json.loads(self.file.read_text(encoding="utf-8"))
        names = [field.name for field in fields(self.key)]
        return {self.key(**{name: row.pop(name) for name in names}): self.value(**row) for row in rows}

    def write(self, records: Mapping[K, V]) -> None:
        """Writes the records, sorted by their keys."""
        rows = [json.dumps(asdict(key) | asdict(value)) for key, value in sorted(records.items())]
        with whole_file(self.file, replace=True) as partial_file:
            partial_file.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")

    def change(self, edit: Callable[[dict[K, V]], dict[K, V]]) -> dict[K, V]:
        """Changes the records and returns them; other processes may change it at the same time."""
        with self.file.with_suffix(".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = edit(self.read())
            self.write(records)
        return records

    def add(self, key: K, value: V) -> dict[K, V]:
        """Adds a record, as `change` does, and returns all records."""
        return self.change(lambda known: known | {key: value})


def unless_refused(compile_one: Callable[[], V], console: Console) -> V | None:
    """Returns the result of a function that compiles; None, with the error on the console, if the compiler fails."""
    try:
        return compile_one()
    except CompilerFailed as error:
        console.tell(str(error))
        return None
