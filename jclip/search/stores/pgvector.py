"""PostgreSQL with pgvector, https://github.com/pgvector/pgvector.

Vectors are `halfvec`, as in the index. An exact search compares in float32. The approximate index is HNSW over halfvec;
the rows that it finds are ranked again by the exact similarity.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from jclip.errors import JclipError, first_line
from jclip.search.filters import Filter
from jclip.search.index import IndexFacts
from jclip.search.searching import Hit
from jclip.search.stores.addresses import Address
from jclip.search.stores.facets import Bounded, Dated, Tagged, conditions_of, facets_of
from jclip.search.stores.rows import clean, entry_of_values, facts_as_text, facts_of_text
from jclip.search.stores.store import Row

_CONNECTION: dict[str, Any] = {
    "connect_timeout": "10",
    # A server that vanishes silently is noticed after half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
    "application_name": "jclip",
}
_PLACE = re.compile(
    r"//([^@/?]*@)?([^@:/?\[\]]|\[[0-9a-fA-F:.%]*\])*(:[0-9]*)?(,[^@:/?]*(:[0-9]*)?)*(/[^@?]*)?(\?.*)?", re.DOTALL
)
"""Place of an address whose password, if any, is percent-encoded: otherwise a part of it could pass for a host."""
_LEAST_VERSION = (0, 8)
"""The first version of pgvector that scans on if a filter leaves too few rows."""
_MOST_CANDIDATES = 1000
"""Largest value of hnsw.ef_search."""

_ENTRY = {
    "id": "bigint NOT NULL",
    "vector": "bigint NOT NULL",
    "path": "bytea NOT NULL",
    "kind": "text NOT NULL",
    "size": "bigint",
    "mtime_ns": "bigint",
    "hash": "bytea",
    "width": "bigint",
    "height": "bigint",
    "text": "text",
    "meta": "jsonb NOT NULL",
    "date": "bigint",
    "origin": "text NOT NULL",
    "container": "bytea",
    "position": "bigint",
}
_COLUMNS = {
    "source": "text NOT NULL",
    **_ENTRY,
    "state": "bigint NOT NULL",
    "tags": "text[] NOT NULL",
    "bounds": "jsonb NOT NULL",
    "embedding": "halfvec({dim}) NOT NULL",
}


class PgvectorStore:
    """Table in a PostgreSQL: see `jclip.search.stores.store.Store`.

    Args:
      address: the place is that of a libpq URI, "//USER@HOST/DATABASE?PARAMETERS", or empty for libpq's environment
        variables. A password may be in ~/.pgpass or PGPASSWORD.
    """

    def __init__(self, address: Address):
        self.address = address
        self._table = sql.Identifier(address.table)
        self._connection = self._connect()

    def facts(self) -> IndexFacts | None:
        """See `Store`."""
        with self._reporting():
            found = self._connection.execute(
                "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass(%s)",
                [self._table.as_string(self._connection)],
            ).fetchone()
        return None if found is None else facts_of_text(found[0], self.address)

    def create(self, facts: IndexFacts) -> None:
        """See `Store`."""
        self._check_extension()
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind.format(dim=facts.dim)))
            for name, kind in _COLUMNS.items()
        ]
        with self._reporting(), self._connection.transaction():
            # Two processes that create a table at once would collide.
            self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [self.address.table])
            if self.facts() is not None:
                return
            self._execute(
                "CREATE TABLE {table} ({columns}, PRIMARY KEY (source, id))", columns=sql.SQL(", ").join(columns)
            )
            self._execute("CREATE INDEX ON {table} USING gin (tags)")
            self._execute("COMMENT ON TABLE {table} IS {facts}", facts=sql.Literal(facts_as_text(facts)))

    def states(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """See `Store`."""
        with self._reporting(), self._connection.transaction(), self._connection.cursor("states") as cursor:
            cursor.itersize = 50_000
            cursor.execute(self._statement("SELECT id, state FROM {table} WHERE source = %s ORDER BY id"), [source])
            found = np.array(list(cursor), np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def upsert(self, rows: Sequence[Row]) -> None:
        """See `Store`."""
        names = [sql.Identifier(name) for name in _COLUMNS]
        statement = self._statement(
            "INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT (source, id) DO UPDATE SET {changes}",
            names=sql.SQL(", ").join(names),
            values=sql.SQL(", ").join(map(sql.Placeholder, _COLUMNS)),
            changes=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names),
        )
        values = [_values(row) for row in rows]
        with self._reporting(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(statement, values)

    def delete(self, source: str, ids: Sequence[int]) -> None:
        """See `Store`."""
        with self._reporting():
            self._execute("DELETE FROM {table} WHERE source = %s AND id = ANY(%s)", [source, list(ids)])

    def search(
        self, query_d: np.ndarray, k: int, offset: int = 0, chosen: Filter | None = None, exact: bool = True
    ) -> list[Hit]:
        """See `Store`."""
        conditions, values = _where(chosen, self.address.source)
        candidates = min(_MOST_CANDIDATES, max(200, 4 * (k + offset)))
        values |= {"query": _Vector(query_d, ">f4"), "half": _Vector(query_d, ">f2"), "k": k, "offset": offset}
        values["candidates"] = max(candidates, k + offset)
        near = sql.SQL("{table}").format(table=self._table)
        if not exact and self.is_approximate():
            near = self._statement(
                "(SELECT * FROM {table} WHERE {conditions} "
                "ORDER BY embedding <#> %(half)s::halfvec LIMIT %(candidates)s)",
                conditions=conditions,
            )
        statement = self._statement(
            "SELECT {names}, -(embedding::vector <#> %(query)s::vector) AS score FROM {near} AS near "
            "WHERE {conditions} ORDER BY score DESC, source, vector, id LIMIT %(k)s OFFSET %(offset)s",
            names=sql.SQL(", ").join(map(sql.Identifier, _ENTRY)),
            near=near,
            conditions=conditions,
        )
        with self._reporting(), self._connection.transaction(), self._connection.cursor(row_factory=dict_row) as cursor:
            if not exact:
                cursor.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")
                cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(candidates)])
            found = cursor.execute(statement, values).fetchall()
        return [Hit(entry_of_values(row, self.address), row["score"]) for row in found]

    def build(self) -> None:
        """See `Store`."""
        with self._reporting(), self._connection.transaction():
            for name in self._approximate():
                self._connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*name)))
            self._execute("CREATE INDEX ON {table} USING hnsw (embedding halfvec_ip_ops)")

    def is_approximate(self) -> bool:
        """See `Store`."""
        with self._reporting():
            return bool(self._approximate())

    def close(self) -> None:
        """See `Store`."""
        self._connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        place = self.address.place
        try:
            if place and not _PLACE.fullmatch(place):
                raise ValueError
            given: dict[str, Any] = conninfo_to_dict(f"postgresql:{place}" if place else "")
        except (ValueError, psycopg.Error):  # libpq's message may contain a part of the password
            raise JclipError(
                f"{self.address.kind} address: it is not valid; write pgvector://USER@HOST:PORT/DATABASE, and %40 for "
                "an @ in a name or password"
            ) from None
        try:
            connection = psycopg.connect(autocommit=True, **(_CONNECTION | given))
        except psycopg.Error as error:
            raise JclipError(
                f"{self.address} cannot be reached ({_reason(error)}): start the server, or correct the address; a "
                "password belongs into ~/.pgpass or PGPASSWORD"
            ) from None
        connection.adapters.register_dumper(_Vector, _VectorDumper)
        return connection

    def _check_extension(self) -> None:
        try:
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        except psycopg.Error as error:
            raise JclipError(
                f"{self.address}: the database has no extension vector ({_reason(error)}): install pgvector, and run "
                "CREATE EXTENSION vector as its administrator"
            ) from None
        with self._reporting():
            found = self._connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        version = found[0] if found else "unknown"
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _LEAST_VERSION:
            least = ".".join(map(str, _LEAST_VERSION))
            raise JclipError(
                f"{self.address}: its pgvector is {version}, but jclip needs {least}: install a newer one, and run "
                "ALTER EXTENSION vector UPDATE"
            )

    def _approximate(self) -> list[tuple[str, str]]:
        """Returns schema and name of the approximate indexes that are complete."""
        return self._connection.execute(
            "SELECT spaces.nspname, names.relname FROM pg_index JOIN pg_class names ON names.oid = indexrelid "
            "JOIN pg_am ON pg_am.oid = names.relam JOIN pg_namespace spaces ON spaces.oid = names.relnamespace "
            "WHERE indrelid = to_regclass(%s) AND amname = 'hnsw' AND indisvalid",
            [self._table.as_string(self._connection)],
        ).fetchall()

    def _statement(self, words: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(words).format(table=self._table, **parts)

    def _execute(self, words: str, values: Sequence[Any] | None = None, **parts: sql.Composable) -> None:
        self._connection.execute(self._statement(words, **parts), values)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise self._lost(error) from None
        except psycopg.Error as error:
            raise JclipError(f"{self.address}: the database refuses ({_reason(error)})") from None

    def _lost(self, error: psycopg.Error) -> JclipError:
        if not self._connection.closed:
            return JclipError(
                f"{self.address}: the database cannot go on ({_reason(error)}): correct that, and try again"
            )
        return JclipError(
            f"{self.address}: the server went away ({_reason(error)}): start it, and run the same command again; what "
            "was written is kept"
        )


@dataclass(frozen=True)
class _Vector:
    """Vector (dim,) that is sent as big-endian numbers of a type: the binary form of vector and halfvec."""

    array_d: np.ndarray
    dtype: str


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Vector) -> bytes:
        return struct.pack(">HH", len(obj.array_d), 0) + obj.array_d.astype(obj.dtype).tobytes()


def _values(row: Row) -> dict[str, Any]:
    facets = facets_of(row.entry)
    entry = {name: getattr(row.entry, name) for name in _ENTRY}
    return entry | {
        "source": row.source,
        "state": row.state,
        "path": os.fsencode(row.entry.path),
        "container": None if row.entry.container is None else os.fsencode(row.entry.container),
        "text": clean(row.entry.text),
        "meta": Jsonb(clean(row.entry.meta)),
        "tags": list(facets.tags),
        "bounds": Jsonb(facets.bounds),
        "embedding": _Vector(row.vector, ">f2"),
    }


def _where(chosen: Filter | None, source: str | None) -> tuple[sql.Composable, dict[str, Any]]:
    """Returns the SQL condition of a filter and a source, and the values of its parameters."""
    parts: list[sql.Composable] = [] if source is None else [sql.SQL("source = {}").format(sql.Placeholder("source"))]
    values: dict[str, Any] = {"source": source}
    for number, condition in enumerate(conditions_of(chosen)):
        name, value = f"name{number}", f"value{number}"
        match condition:
            case Tagged(tags, negated):
                words, values[value] = "NOT tags && {value}" if negated else "tags && {value}", list(tags)
            case Dated(relation, seconds):
                words, values[value] = f"date {relation} {{value}}", seconds
            case Bounded(bound, relation, limit):
                words = '(bounds ->> {name}) COLLATE "C"' if isinstance(limit, str) else "(bounds ->> {name})::float8"
                words, values[name], values[value] = f"{words} {relation} {{value}}", bound, limit
        parts.append(sql.SQL(words).format(name=sql.Placeholder(name), value=sql.Placeholder(value)))
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true"), values


def _reason(error: psycopg.Error) -> str:
    return first_line(error).removeprefix("connection failed: ")
