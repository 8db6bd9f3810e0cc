"""Milvus, https://milvus.io, or a file of milvus-lite, which needs no server.

Vectors are float32, because milvus-lite knows no float16. The index is FLAT, which is exact, until an approximate one,
HNSW, replaces it. Filters contain only hex digits and numbers: see `jclip.search.stores.facets`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, quote, unquote, unquote_to_bytes, urlsplit

import grpc
import numpy as np

from jclip.errors import JclipError, first_line
from jclip.search.entries import Entry
from jclip.search.filters import Filter
from jclip.search.index import IndexFacts
from jclip.search.searching import Hit
from jclip.search.stores.addresses import Address
from jclip.search.stores.facets import Bounded, Condition, Dated, Tagged, conditions_of, facets_of
from jclip.search.stores.quiet_pymilvus import DataType, MilvusClient, MilvusException, Status
from jclip.search.stores.rows import clean, entry_of_values, facts_as_text, facts_of_text
from jclip.search.stores.store import Row

_FACTS = "jclip"
"""Property of the collection that holds the facts of its indexes."""
_CONNECT, _CALL, _BUILD = 10, 30, 24 * 3600
"""Seconds after which a call fails; pymilvus repeats it until then."""
_DEFAULT = "http://localhost:19530"
_MOST_HITS = 16_384
_MOST_BYTES = 65_000
"""Number of bytes of an entry; Milvus accepts at most 65,536 in a field of type JSON."""
_SHORTENED = 1_000
"""Number of characters that are kept of the text of an entry with too many bytes."""
_TIMEOUT = "Retry timeout"
_NO_DATE = -(2**62)
_PATHS = ("path", "container")


class MilvusStore:
    """Collection in a Milvus: see `jclip.search.stores.store.Store`.

    Args:
      address: the place is "//USER:PASSWORD@HOST:PORT/DATABASE", a path that ends in ".db", or empty for MILVUS_URI.
        MILVUS_TOKEN may hold "USER:PASSWORD". The parameter "secure=true" asks for TLS.
    """

    def __init__(self, address: Address):
        self.address = address
        self._is_new = _is_file(address) and not os.path.lexists(address.place)
        try:
            self._client = MilvusClient(**_connection(address), timeout=_CONNECT, dedicated=True)
        except (MilvusException, grpc.RpcError) as error:
            hint = "start the server, or correct the address; MILVUS_TOKEN may hold USER:PASSWORD"
            if _is_file(address):
                hint = "check that its folder exists, and no other process has opened it"
            raise JclipError(f"{address} cannot be reached ({_reason(error)}): {hint}") from None

    def facts(self) -> IndexFacts | None:
        """See `Store`."""
        with self._reporting():
            if not self._client.has_collection(self.address.table, timeout=_CALL):
                return None
            found = self._client.describe_collection(self.address.table, timeout=_CALL)
        return facts_of_text(found["properties"].get(_FACTS), self.address)

    def create(self, facts: IndexFacts) -> None:
        """See `Store`."""
        if self.facts() is not None:
            return
        self._is_new = False
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
        schema.add_field("source", DataType.VARCHAR, max_length=64)
        for name in ("id", "state", "date"):
            schema.add_field(name, DataType.INT64)
        schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4096, max_length=64)
        for name in ("bounds", "entry"):
            schema.add_field(name, DataType.JSON)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=facts.dim)
        with self._reporting():
            self._client.create_collection(
                self.address.table,
                schema=schema,
                index_params=_index("FLAT"),
                consistency_level="Strong",
                properties={_FACTS: facts_as_text(facts)},
                timeout=_CALL,
            )

    def states(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """See `Store`."""
        found: list[tuple[int, int]] = []
        with self._reporting():
            self._client.load_collection(self.address.table, timeout=_CALL)
            rows = self._client.query_iterator(
                self.address.table,
                batch_size=10_000,
                filter=_of_source(source),
                output_fields=["id", "state"],
                timeout=_CALL,
            )
            while some := rows.next():
                found += [(row["id"], row["state"]) for row in some]
            rows.close()
        table = np.array(sorted(found), np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def upsert(self, rows: Sequence[Row]) -> None:
        """See `Store`."""
        values = [self._values(row) for row in rows]
        with self._reporting():
            self._client.upsert(self.address.table, values, timeout=_CALL)

    def delete(self, source: str, ids: Sequence[int]) -> None:
        """See `Store`."""
        with self._reporting():
            self._client.delete(self.address.table, ids=[_key(source, id) for id in ids], timeout=_CALL)

    def search(
        self, query_d: np.ndarray, k: int, offset: int = 0, chosen: Filter | None = None, exact: bool = True
    ) -> list[Hit]:
        """See `Store`."""
        if k + offset > _MOST_HITS:
            raise JclipError(f"{self.address}: Milvus finds at most {_MOST_HITS:,} hits: ask for fewer")
        if exact and self.is_approximate():
            raise JclipError(f"{self.address}: its approximate index has replaced the exact one: search with --ann")
        with self._reporting():
            self._client.load_collection(self.address.table, timeout=_CALL)
            (found,) = self._client.search(
                self.address.table,
                data=[query_d.tolist()],
                limit=k + offset,
                filter=self._filter(chosen),
                output_fields=["source", "entry"],
                search_params={"metric_type": "IP", "params": {} if exact else {"ef": max(200, 4 * (k + offset))}},
                timeout=_CALL,
            )
        hits = [(row["entity"]["source"], Hit(self._entry(row["entity"]["entry"]), row["distance"])) for row in found]
        hits.sort(key=lambda pair: (-pair[1].score, pair[0], pair[1].entry.vector, pair[1].entry.id))
        return [hit for _, hit in hits[offset:]]

    def build(self) -> None:
        """See `Store`."""
        table = self.address.table
        with self._reporting():
            self._client.release_collection(table, timeout=_CALL)
            self._client.drop_index(table, "vector", timeout=_CALL)
            self._client.create_index(table, _index("HNSW", M=16, efConstruction=200), timeout=_BUILD)
            self._client.load_collection(table, timeout=_BUILD)

    def is_approximate(self) -> bool:
        """See `Store`."""
        with self._reporting():
            found = self._client.describe_index(self.address.table, "vector", timeout=_CALL)
        return found is not None and found["index_type"] != "FLAT"

    def close(self) -> None:
        """See `Store`."""
        self._client.close()
        if _is_file(self.address):
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.address.place)
        if self._is_new:  # a search has found no file, and milvus-lite has made an empty one
            shutil.rmtree(self.address.place, ignore_errors=True)

    def _filter(self, chosen: Filter | None) -> str:
        parts = [] if self.address.source is None else [_of_source(self.address.source)]
        return " and ".join((*parts, *(f"({_expression(each)})" for each in conditions_of(chosen))))

    def _values(self, row: Row) -> dict[str, Any]:
        facets = facets_of(row.entry)
        entry = _as_json(row.entry)
        if len(json.dumps(entry, ensure_ascii=False).encode()) > _MOST_BYTES and entry["text"]:
            entry["text"] = f"{entry['text'][:_SHORTENED]}…"
        if (size := len(json.dumps(entry, ensure_ascii=False).encode())) > _MOST_BYTES:
            raise JclipError(
                f"{row.entry.path}: its metadata have {size:,} bytes, but Milvus holds {_MOST_BYTES:,}: shorten them"
            )
        return {
            "key": _key(row.source, row.entry.id),
            "source": _digest(row.source),
            "id": row.entry.id,
            "state": row.state,
            "date": _NO_DATE if row.entry.date is None else row.entry.date,
            "tags": list(facets.tags),
            "bounds": facets.bounds,
            "entry": entry,
            "vector": row.vector.astype(np.float32).tolist(),
        }

    def _entry(self, found: Any) -> Entry:
        try:
            values = dict(found)
            values |= {name: values[name] and unquote_to_bytes(values[name]) for name in _PATHS}
            values["hash"] = values["hash"] and bytes.fromhex(values["hash"])
        except (TypeError, ValueError, KeyError, AttributeError):
            values = {}
        return entry_of_values(values, self.address)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            if _is_lost(error):
                raise JclipError(
                    f"{self.address}: the server went away ({_reason(error)}): start it, and run the same command "
                    "again; what was written is kept"
                ) from None
            raise JclipError(f"{self.address}: the database refuses ({_reason(error)})") from None


def _connection(address: Address) -> dict[str, Any]:
    """Returns arguments of `MilvusClient`."""
    token = os.environ.get("MILVUS_TOKEN", "")
    if _is_file(address):
        return {"uri": address.place}
    if not address.place:
        return {"uri": os.environ.get("MILVUS_URI") or _DEFAULT, "token": token}
    try:
        parts = urlsplit(f"milvus:{address.place}")
        port = parts.port or 19530
        secure = parse_qs(parts.query, strict_parsing=bool(parts.query)).get("secure", ["false"]) == ["true"]
        if not parts.hostname or not address.place.startswith("//"):
            raise ValueError
    except ValueError:
        raise JclipError(
            f"{address.kind} address: it is not valid; write milvus://USER@HOST:PORT/DATABASE, or milvus:FILE.db"
        ) from None
    if parts.username and parts.password:
        token = f"{unquote(parts.username)}:{unquote(parts.password)}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    uri = f"{'https' if secure else 'http'}://{host}:{port}"
    return {"uri": uri, "token": token, "db_name": unquote(parts.path.strip("/"))}


def _is_file(address: Address) -> bool:
    return address.place.endswith(".db") and not address.place.startswith("//")


def _index(kind: str, **params: int) -> Any:
    found = MilvusClient.prepare_index_params()
    found.add_index("vector", index_type=kind, metric_type="IP", params=params)
    return found


def _digest(source: str) -> str:
    return hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _of_source(source: str) -> str:
    return f'source == "{_digest(source)}"'


def _key(source: str, id: int) -> str:
    return f"{_digest(source)}:{id}"


def _as_json(entry: Entry) -> dict[str, Any]:
    """Returns an entry as JSON that Milvus accepts: without bytes and characters that are not UTF-8."""
    values: dict[str, Any] = clean({**vars(entry), "path": "", "container": ""})
    for name in _PATHS:
        place = getattr(entry, name)
        values[name] = None if place is None else quote(os.fsencode(place))
    values["hash"] = None if entry.hash is None else entry.hash.hex()
    return values


def _expression(condition: Condition) -> str:
    """Returns a condition in Milvus's language."""
    match condition:
        case Tagged(tags, negated):
            return f"{'not ' if negated else ''}array_contains_any(tags, {json.dumps(tags)})"
        case Dated(relation, seconds):
            return f"date > {_NO_DATE} and date {relation} {seconds}"
        case Bounded(name, relation, limit):
            return f"bounds[{json.dumps(name)}] {relation} {json.dumps(limit)}"


def _is_lost(error: Exception) -> bool:
    if not isinstance(error, MilvusException):
        return True
    return isinstance(error.code, grpc.StatusCode) or error.code == Status.CONNECT_FAILED or _TIMEOUT in error.message


def _reason(error: Exception) -> str:
    """Returns the first line of an error of pymilvus or gRPC, without what only their developers need."""
    words = first_line(Exception(error.message)) if isinstance(error, MilvusException) else first_line(error)
    return words.partition(", channel_state=")[0].partition(", debug=")[0]
