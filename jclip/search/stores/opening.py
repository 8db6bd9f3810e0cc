"""Registered kinds of vector databases, and their opening by address."""

from collections.abc import Callable

from jclip.errors import JclipError
from jclip.names import suggestion
from jclip.outside import KINDS, import_kind
from jclip.search.stores.addresses import Address, parse_address
from jclip.search.stores.store import Store


def _pgvector(address: Address) -> Store:
    from jclip.search.stores.pgvector import PgvectorStore

    return PgvectorStore(address)


def _milvus(address: Address) -> Store:
    from jclip.search.stores.milvus import MilvusStore

    return MilvusStore(address)


_OPENERS: dict[str, Callable[[Address], Store]] = {"pgvector": _pgvector, "milvus": _milvus}


def register_store(kind: str, opener: Callable[[Address], Store]) -> None:
    """Registers a kind of database under the name that begins its addresses.

    A module of another package can register one: see `jclip.outside`. Its entry point has the name of the kind.
    """
    _OPENERS[kind] = opener


def open_store(address: Address | str) -> Store:
    """Connects to a database. Raises JclipError if its kind is not known, or it cannot be reached."""
    if isinstance(address, str):
        address = parse_address(address)
    if address.kind not in _OPENERS:
        import_kind(address.kind)
    opener = _OPENERS.get(address.kind)
    if opener is None:
        raise JclipError(
            f"{address.kind} is not a known kind of database: {suggestion(address.kind, _OPENERS)}, or name the "
            f"module that registers it in {KINDS}"
        )
    return opener(address)
