"""Orbax's checkpoint manager, set up for a run."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jclip.errors import JclipError
from jclip.parallel.writers import writers_barrier

# The replicas of an array share the work of writing it, except for small arrays.
_ARRAYS = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20)),
)


def open_manager(folder: Path, keep: int, best: Callable[[], int | None]) -> ocp.CheckpointManager:
    """Opens orbax's manager of a folder of checkpoints.

    Args:
      folder: result of `literal_path`.
      keep: number of newest checkpoints that are kept.
      best: returns the number of another checkpoint that is kept, or None.
    """
    handlers: Mapping[str, Any] = {
        "state": state_handler(),
        "record": ocp.JsonCheckpointHandler(),
        "journal": ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(
        create=True,
        preservation_policy=_LastAndBest(keep, best),
        # Asynchronous writers would wait five minutes for a folder that could not be created.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False, barrier_sync_fn=writers_barrier),
    )
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def state_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns a new reader and writer of a pytree of arrays."""
    return ocp.PyTreeCheckpointHandler(type_handler_registry=_ARRAYS)


@contextmanager
def literal_path(folder: Path) -> Iterator[Path]:
    """Yields an absolute path to `folder` that orbax does not expand as a pattern.

    Orbax globs its folders, and tensorstore accepts neither backslashes nor bytes that are not UTF-8. For such names
    the path goes through a symbolic link in a temporary folder.

    >>> with literal_path(Path("/runs/a[1]/checkpoints")) as path:
    ...     "[" in str(path)
    False

    Raises:
      JclipError: no temporary folder can hold such a link.
    """
    absolute = folder.absolute()
    if _is_literal(absolute):
        yield absolute
        return
    places = [Path(place) for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))]
    place = next((place for place in places if _is_literal(place) and os.access(place, os.W_OK)), None)
    if place is None:
        raise JclipError(
            f"{folder} has a name that needs a symbolic link, and {places[0]} cannot hold one: rename the folder "
            "(without brackets, stars, question marks and backslashes), or set TMPDIR"
        )
    links = Path(tempfile.mkdtemp(prefix="jclip-", dir=place))
    try:
        link = links / "checkpoints"
        link.symlink_to(absolute)
        yield link
    finally:
        shutil.rmtree(links, ignore_errors=True)


def _is_literal(path: Path) -> bool:
    """Returns whether orbax, tensorstore and `glob` do not interpret the path."""
    name = str(path)
    return name.isprintable() and not set(name) & set("[]*?\\") and ":/" not in name


@dataclass(frozen=True)
class _LastAndBest:
    """Orbax's preservation policy: the newest and the best."""

    keep: int
    best: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Returns whether to keep each checkpoint, oldest first."""
        del context
        best = self.best()
        last = len(checkpoints) - self.keep
        return [i >= last or checkpoint.step == best for i, checkpoint in enumerate(checkpoints)]
