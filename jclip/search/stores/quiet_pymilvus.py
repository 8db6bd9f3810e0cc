"""Imports pymilvus without its configuration of logging, which would disable all other loggers of the process."""

import logging.config
from collections.abc import Iterator
from contextlib import contextmanager

_LOUD = ("pymilvus", "milvus_lite", "grpc._server")
"""Loggers of errors, with tracebacks, that are also raised, or that pymilvus expects from milvus-lite."""


@contextmanager
def _without_configuration() -> Iterator[None]:
    usual = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = usual


with _without_configuration():
    from pymilvus import DataType, MilvusClient, MilvusException
    from pymilvus.client.types import Status

for _name in _LOUD:
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

__all__ = ["DataType", "MilvusClient", "MilvusException", "Status"]
