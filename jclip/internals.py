"""Private parts of jax and orbax that jclip depends on, and a list of those of other libraries.

None of them has a public equivalent. Checked against jax 0.10.2 and orbax-checkpoint 0.12.8; `tests/test_internals.py`
fails when a later version moves one of them:

- jax has the client of its coordination service, by which hosts exchange text without devices, in `jax._src`.
- jax knows the devices of the current mesh while it traces, but `jax.sharding.get_mesh` refuses to say.
- orbax does not end its reader coroutines when an array cannot be read. Only the garbage collector knows them.
- orbax logs tracebacks of its threads to absl's logger, and its late writers raise in destructors.

Others are beside their only use, whose tests run them: the methods of jax's client (`jclip.parallel`), the names of
orbax's files (`jclip.checkpoint`), and the methods that a builder of tensorflow_datasets overrides
(`jclip.data.sources.writing`). Only `jclip.conversion` may import torch, so torchvision's missing operators and the
registry of CLIP_benchmark are there (`parity/peers.py`, `clip_benchmark.py`).
"""

import gc
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType
from typing import Any

import jax
from jax._src import distributed
from jax._src.mesh import get_concrete_mesh

_PATIENCE = 10.0  # seconds for orphaned readers to end


def coordination_client() -> Any:
    """Returns jax's client of the coordination service; None in a run of a single process."""
    return distributed.global_state.client


def coordinator_host() -> str:
    """Returns the host name or address of process 0."""
    return str(distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")


def process_index() -> int:
    """Returns the index of this process. `jax.process_index` would wait for the devices of all processes."""
    index: int = distributed.global_state.process_id
    return index


def process_count() -> int:
    """Returns the number of connected processes."""
    count: int = distributed.global_state.num_processes
    return 1 if coordination_client() is None else count


def current_mesh() -> jax.sharding.Mesh:
    """Returns the mesh of `jax.set_mesh`, also while jax traces a function; an empty one without it.

    jax keeps traces by the abstract mesh, which has the devices' kind and not the devices: read only what all devices
    of a kind have in common.
    """
    return get_concrete_mesh()


@contextmanager
def orphaned_readers_end() -> Iterator[None]:
    """Silences orbax's orphaned readers within the block, and waits for them at its end."""
    hook, logger = sys.unraisablehook, logging.getLogger("asyncio")
    sys.unraisablehook, logger.disabled = (lambda _: None), True
    try:
        yield
        until = time.monotonic() + _PATIENCE
        gc.collect()
        while orphaned_readers() and time.monotonic() < until:
            time.sleep(0.05)
            gc.collect()
    finally:
        sys.unraisablehook, logger.disabled = hook, False


def orphaned_readers() -> list[Any]:
    """Returns orbax's coroutines that have not ended."""
    return [
        thing for thing in gc.get_objects() if type(thing) is CoroutineType and "orbax" in thing.cr_code.co_filename
    ]


@contextmanager
def no_orbax_tracebacks() -> Iterator[None]:
    """Hides tracebacks of orbax's threads; the errors themselves are raised to the caller."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.exc_info and "tracked_metric" not in record.getMessage()

    def unless_loop_is_closed(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(is_wanted)
    sys.unraisablehook = unless_loop_is_closed
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)
        sys.unraisablehook = hook
