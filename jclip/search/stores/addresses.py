"""Addresses of tables in vector databases.

    pgvector://me@db.example:5432/photos?table=holiday
    pgvector                                     the server that PGHOST, PGDATABASE … name
    milvus://localhost:19530/photos
    milvus:photos.db                             a file, which needs no server: milvus-lite

The parameters `table` and `source` are jclip's. The rest is as the database's own client reads it.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from jclip.errors import JclipError

TABLE = "jclip"
"""Default name of the table."""

_ADDRESS = re.compile(r"([a-z][a-z0-9_+-]*)(?::(.*))?", re.DOTALL)
_OWN = ("table", "source")


@dataclass(frozen=True)
class Address:
    """Address of a table. Its string has neither a password nor parameters, so that messages can show it.

    Attributes:
      kind: registered name of the database's kind, such as "pgvector".
      place: the rest, without jclip's parameters; "" for the default of the kind.
      table: name of the table.
      source: name under which an index is pushed; None for one made from the machine's name and the index's path.
    """

    kind: str
    place: str
    table: str = TABLE
    source: str | None = None

    def __str__(self) -> str:
        # A password that is not percent-encoded may contain "/", "?" or "@".
        before, at, after = self.place.removeprefix("//").rpartition("@")
        slashes = "//" if self.place.startswith("//") else ""
        shown = f"{slashes}{before.partition(':')[0]}{at}{after}".partition("?")[0]
        return f"{self.kind}{':' if shown else ''}{shown}, table {self.table}"


def parse_address(text: str) -> Address:
    """Returns the address that a text describes.

    >>> parse_address("pgvector://me:secret@db/photos?sslmode=require&table=holiday")
    Address(kind='pgvector', place='//me:secret@db/photos?sslmode=require', table='holiday', source=None)
    >>> print(parse_address("pgvector://me:secret@db/photos"))
    pgvector://me@db/photos, table jclip

    Raises:
      JclipError: it has no kind, or a name is empty.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise JclipError(
            "the address of a database must begin with its kind: pgvector://USER@HOST/DATABASE, for example"
        )
    kind = match[1]
    place, _, query = (match[2] or "").partition("?")
    own: dict[str, str] = {}
    rest = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in _OWN:
            own[name] = unquote(value)
        else:
            rest.append(part)
    for name, value in own.items():
        if not value:
            raise JclipError(f"the address of the {kind} database has an empty {name}: write {name}=NAME, or omit it")
    return Address(kind, f"{place}?{'&'.join(rest)}" if rest else place, **own)


def is_address(text: str) -> bool:
    """Returns True for an address with a colon, unless there is a folder of this name."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and match[2] is not None and not os.path.isdir(text)
