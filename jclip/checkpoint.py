"""The checkpoints of a run: one lineage through all its stages, written by orbax.

A checkpoint holds every array of the training state and a small JSON record of where the run stood. Orbax writes into
a temporary folder and renames it, so that a checkpoint is whole or absent.
"""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jclip.config import difference
from jclip.errors import JclipError


@dataclass(frozen=True)
class Position:
    """Where a run stands: the stage's index, the steps done in it, and the steps done in all stages together."""

    stage: int
    step: int
    total: int


class Checkpoints:
    """The checkpoints under one folder, newest last; the last `keep` stay on disk."""

    def __init__(self, folder: Path, keep: int = 2):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, position: Position, state: Any, record: dict[str, Any]) -> None:
        """Writes the state at a position, once.

        Args:
          position: where the run stands.
          state: a pytree of arrays.
          record: JSON-ready facts that go with it; "config" is compared when the run resumes.

        Raises:
          JclipError: the disk is full; the checkpoints before this one are untouched.
        """
        if position.total in self._manager.all_steps():
            return
        size = sum(np.prod(leaf.shape, dtype=np.int64) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._folder).free < size:
            raise self._full(size)
        record = {**record, "stage": position.stage, "step": position.step}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        try:
            self._manager.save(position.total, args=arguments)
            self._manager.wait_until_finished()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(size) from error
            raise

    def latest(self, config: Any, free_to_change: tuple[str, ...] = ()) -> Position | None:
        """The newest checkpoint's position, or None when there is none.

        Args:
          config: the JSON form of the configuration about to run.
          free_to_change: prefixes of dotted fields in which a resumed run may differ.

        Raises:
          JclipError: the checkpoint came from another configuration; the fields that differ are named.
        """
        total = self._manager.latest_step()
        if total is None:
            return None
        record = self._manager.restore(total, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        changed = [line for line in difference(record["config"], config) if not line.startswith(free_to_change)]
        if changed:
            shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise JclipError(
                f"{self._folder} holds a run with another configuration ({shown}): "
                "choose another --workdir, or give the old values back"
            )
        return Position(record["stage"], record["step"], total)

    def restore(self, position: Position, like: Any) -> Any:
        """The state at a position, with the shapes, dtypes and shardings of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(position.total, args=arguments)["state"]

    def close(self) -> None:
        """Releases orbax's threads."""
        self._manager.close()

    def _full(self, size: int) -> JclipError:
        last = self._manager.latest_step()
        safe = f"the checkpoint of step {last} is safe" if last is not None else "none was written before"
        return JclipError(
            f"no space for a checkpoint of {size / 2**20:.0f} MiB in {self._folder} ({safe}): free some and run again"
        )
