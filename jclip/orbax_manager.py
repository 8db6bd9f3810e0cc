"""Setup of orbax for one run's checkpoints: options, a path that it reads literally, and less noise on the terminal."""

import gc
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType
from typing import Any

import jax
import orbax.checkpoint as ocp

from jclip.errors import JclipError
from jclip.parallel import saving

_PATIENCE = 10.0  # seconds for the other readers of a damaged checkpoint to notice that nobody waits for them

# The copies of a replicated array share the work of writing it; a small one is faster written by one of them.
_ARRAYS = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20)),
)


def open_manager(folder: Path, keep: int, best: Callable[[], int | None]) -> ocp.CheckpointManager:
    """Opens orbax's manager of a folder of checkpoints.

    Args:
      folder: absolute, and literal for orbax, see `literal`.
      keep: number of the newest checkpoints that stay.
      best: returns the number of one more that stays, or None.
    """
    handlers: Mapping[str, Any] = {
        "state": state_handler(),
        "record": ocp.JsonCheckpointHandler(),
        "journal": ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(
        create=True,
        preservation_policy=_LastAndBest(keep, best),
        # Otherwise writers wait five minutes for a folder that could not be made, in threads that outlive the run.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False, barrier_sync_fn=saving.barrier),
    )
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def state_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns a new reader and writer of a pytree of arrays."""
    return ocp.PyTreeCheckpointHandler(type_handler_registry=_ARRAYS)


@contextmanager
def literal(folder: Path) -> Iterator[Path]:
    """Yields an absolute path to `folder` that orbax takes literally, whatever the folder is called.

    Orbax globs the paths of its folders, and tensorstore knows no backslash and no bytes that are not UTF-8. Where
    that matters, the path leads through a symbolic link in a temporary folder.

    >>> with literal(Path("/runs/a[1]/checkpoints")) as path:
    ...     "[" in str(path)
    False

    Raises:
      JclipError: there is no folder for such a link.
    """
    absolute = folder.absolute()
    if _is_literal(absolute):
        yield absolute
        return
    places = [Path(place) for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))]
    place = next((place for place in places if _is_literal(place) and os.access(place, os.W_OK)), None)
    if place is None:
        raise JclipError(
            f"{folder} has a name that checkpoints need a link for, and {places[0]} cannot hold one: rename the folder "
            "(no brackets, stars, question marks, backslashes), or set TMPDIR"
        )
    links = Path(tempfile.mkdtemp(prefix="jclip-", dir=place))
    try:
        link = links / "checkpoints"
        link.symlink_to(absolute)
        yield link
    finally:
        shutil.rmtree(links, ignore_errors=True)


def _is_literal(path: Path) -> bool:
    """Whether orbax, tensorstore and `glob` all mean the folder of that name, and only that."""
    name = str(path)
    return name.isprintable() and not set(name) & set("[]*?\\") and ":/" not in name


@contextmanager
def no_late_words() -> Iterator[None]:
    """Waits, without a word, for the readers of other arrays that were under way when one could not be read."""
    hook, logger = sys.unraisablehook, logging.getLogger("asyncio")
    sys.unraisablehook, logger.disabled = (lambda _: None), True
    try:
        yield
        until = time.monotonic() + _PATIENCE
        gc.collect()
        while any(map(_is_reader, gc.get_objects())) and time.monotonic() < until:
            time.sleep(0.05)
            gc.collect()
    finally:
        sys.unraisablehook, logger.disabled = hook, False


@contextmanager
def without_traces() -> Iterator[None]:
    """Keeps the tracebacks of orbax's threads off the terminal: the error itself is raised to us.

    One is logged; and when one array cannot be written, the writers of the others come back to a loop that is closed.
    Nor need anybody know that a checkpoint without a score has none.
    """

    def quiet(record: logging.LogRecord) -> bool:
        return not record.exc_info and "tracked_metric" not in record.getMessage()

    def unless_late(late: Any) -> None:
        if "Event loop is closed" not in str(late.exc_value):
            hook(late)

    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(quiet)
    sys.unraisablehook = unless_late
    try:
        yield
    finally:
        logger.removeFilter(quiet)
        sys.unraisablehook = hook


@dataclass(frozen=True)
class _LastAndBest:
    """Which checkpoints stay: orbax asks whenever one was added."""

    keep: int
    best: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether each stays, oldest first."""
        del context
        best = self.best()
        last = len(checkpoints) - self.keep
        return [i >= last or checkpoint.step == best for i, checkpoint in enumerate(checkpoints)]


def _is_reader(thing: object) -> bool:
    return type(thing) is CoroutineType and "orbax" in thing.cr_code.co_filename
