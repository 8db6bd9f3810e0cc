"""The checkpoints of a run: one lineage through all its stages, written by orbax.

A checkpoint holds every array of the training state and a small JSON record of where the run stood. Orbax writes into
a temporary folder and renames it, so that a checkpoint is whole or absent.
"""

import errno
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jclip.errors import JclipError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("RESOURCE_EXHAUSTED", "No space left", "quota exceeded")
_LATE = 0.5  # seconds in which the other writers of a failed checkpoint give up
_NOT_DISK = "memory"  # a device that is full says RESOURCE_EXHAUSTED too


@dataclass(frozen=True)
class Position:
    """Where a run stands: the stage's index, the steps done in it, and the steps done in all stages together."""

    stage: int
    step: int
    total: int

    @property
    def number(self) -> int:
        """The checkpoint's number: it grows from a stage's last step to the start of the next, as `total` does not."""
        return self.total + self.stage


class Checkpoints:
    """The checkpoints under one folder, newest last; the last `keep` stay on disk."""

    def __init__(self, folder: Path, keep: int = 2):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._remove_halves()  # of a process that was killed while it wrote

    def save(self, position: Position, state: Any, record: dict[str, Any]) -> None:
        """Writes the state at a position, once.

        Args:
          position: where the run stands.
          state: a pytree of arrays.
          record: JSON-ready facts that go with it.

        Raises:
          JclipError: the disk is full; the checkpoints before this one are untouched, and no half of it is left.
        """
        if position.number in self._manager.all_steps():
            return
        size = sum(np.prod(leaf.shape, dtype=np.int64) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._folder).free < size:
            raise self._full(size)
        record = {**record, "stage": position.stage, "step": position.step, "total": position.total}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        try:
            with _without_traces():
                self._manager.save(position.number, args=arguments)
                self._manager.wait_until_finished()
        except Exception as error:  # orbax reports a full disk as an OSError, or as a ValueError out of a thread
            self._remove_halves()
            if is_full_disk(error):
                raise self._full(size) from error
            raise

    def latest(self) -> tuple[Position, dict[str, Any]] | None:
        """The newest checkpoint's position and its record, or None when there is none.

        Raises:
          JclipError: an older jclip wrote it, in another form.
        """
        number = self._manager.latest_step()
        if number is None:
            return None
        record = self._manager.restore(number, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        if "total" not in record:
            raise JclipError(f"{self._folder} was written by an older jclip: choose another --workdir")
        return Position(record["stage"], record["step"], record["total"]), record

    def restore(self, position: Position, like: Any) -> Any:
        """The state at a position, with the shapes, dtypes and shardings of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(position.number, args=arguments)["state"]

    def close(self) -> None:
        """Releases orbax's threads."""
        self._manager.close()

    def _full(self, size: int) -> JclipError:
        found = self.latest()
        safe = f"the checkpoint of step {found[0].total} is safe" if found else "none was written before"
        return JclipError(
            f"no space for a checkpoint of {size / 2**20:.0f} MiB in {self._folder} ({safe}): free some and run again"
        )

    def _remove_halves(self) -> None:
        for half in self._folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(half, ignore_errors=True)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no space left, of whatever type it is."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error) for words in _FULL_WORDS) and _NOT_DISK not in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _without_traces() -> Iterator[None]:
    """Keeps the tracebacks of orbax's threads off the terminal: the error itself is raised to us.

    One is logged; and when one array cannot be written, the writers of the others come back to a loop that is closed.
    """

    def quiet(record: logging.LogRecord) -> bool:
        return not record.exc_info

    def unless_late(late: Any) -> None:
        if "Event loop is closed" not in str(late.exc_value):
            hook(late)

    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(quiet)
    sys.unraisablehook = unless_late
    try:
        yield
    except Exception:
        time.sleep(_LATE)
        raise
    finally:
        logger.removeFilter(quiet)
        sys.unraisablehook = hook
