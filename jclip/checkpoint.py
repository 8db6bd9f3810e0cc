"""The checkpoints of a run: one lineage through all its stages, written by orbax while training goes on.

A checkpoint holds every array of the training state, a small JSON record of where the run stood, and what it had
measured so far. Orbax writes into a temporary folder and renames it, so that a checkpoint is whole or absent; and its
record has a checksum of every array, and one of itself and of the measurements, so that a checkpoint which was damaged
later is known, and the one before it is taken.

Every process reads its own share, without waiting for the others: what one of them cannot read, it tells them.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jclip.errors import JclipError
from jclip.io.files import is_full_disk
from jclip.orbax_manager import literal, no_late_words, open_manager, state_handler, without_traces
from jclip.parallel import saving
from jclip.parallel.checksum import checksums
from jclip.parallel.processes import appears, first, is_first, meet, said_by_first, together

_LATE = 0.5  # seconds in which the other writers of a failed checkpoint give up
_ASIDE = "damaged"
_HALF = ".orbax-checkpoint-tmp"  # in the name of a checkpoint that is being written
_JSON = "metadata"  # what orbax calls the file of a JSON item


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


class Restored(NamedTuple):
    """A checkpoint that was read: where it stood, its record, what was measured until then, and the state."""

    position: Position
    record: dict[str, Any]
    journal: list[dict[str, Any]]
    state: Any


class Checkpoints:
    """The checkpoints under one folder, newest last; the last `keep` stay on disk, and the best by its score.

    Every process of a run makes one, and calls its methods in step with the others.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self._folder, self._keep = folder, keep
        self._scores: dict[int, float] = {}
        self._size = 0
        with ExitStack() as stack:
            first(self._make)
            self._path = together(lambda: stack.enter_context(literal(folder)))
            self._manager = self._open()
            stack.enter_context(without_traces())
            self._stack = stack.pop_all()

    def save(
        self,
        position: Position,
        state: Any,
        record: dict[str, Any],
        journal: Sequence[dict[str, Any]] = (),
        score: float | None = None,
    ) -> None:
        """Copies the state and returns; the copy is written meanwhile. A position that is there already stays.

        Args:
          position: where the run stands.
          state: a pytree of arrays.
          record: JSON-ready facts that go with it.
          journal: the metrics so far.
          score: how good it is, higher being better; of those that have one, the best stays on disk.

        Raises:
          JclipError: it cannot be written, or the one before could not: the disk is full, say. The checkpoints before
            are untouched, and no half of one is left.
        """
        self.wait()
        if position.number in self._manager.all_steps():
            return
        self._size = sum(np.prod(leaf.shape, dtype=np.int64) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        first(self._check_writable)
        place = {"stage": position.stage, "step": position.step, "total": position.total}
        record = {**record, **place, "score": score, "checksums": checksums(state)}
        journal = list(journal)
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            record=ocp.args.JsonSave({**record, "seal": _seal(record, journal)}),
            journal=ocp.args.JsonSave(journal),
        )
        if score is not None:
            self._scores[position.number] = score
        with self._named():
            self._manager.save(position.number, args=arguments)

    def wait(self) -> None:
        """Waits until what was saved is on disk, on all processes.

        Raises:
          JclipError: it could not be written.
        """
        together(self._wait)

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints that are there, oldest first."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The number of the one with the highest score, the newer of two alike; None when none has any."""
        there = [number for number in self.numbers() if number in self._scores]
        return max(there, key=lambda number: (self._scores[number], number), default=None)

    def best_score(self) -> float | None:
        """Its score."""
        number = self.best()
        return None if number is None else self._scores[number]

    def latest(self) -> tuple[Position, dict[str, Any]] | None:
        """The newest checkpoint's position and its record, or None when there is none."""
        numbers = self.numbers()
        if not numbers:
            return None
        record, _ = self._facts(numbers[-1])
        return _position(record), record

    def restore(
        self,
        like: Callable[[Position, dict[str, Any]], Any],
        number: int | None = None,
        warn: Callable[[str], None] = print,
    ) -> Restored | None:
        """The newest checkpoint that can be read, or one by its number.

        What cannot be read, or is not what was saved, is set aside into a folder beside the others, with a warning.

        Args:
          like: (position, record) -> the state's shapes, dtypes and shardings. What it raises stands: the checkpoint
            is another run's, not a damaged one.
          number: of a checkpoint; None for the newest.
          warn: is told of the damaged ones.

        Returns:
          None when there is none, or the one that was asked for cannot be read.

        Raises:
          JclipError: there are checkpoints, but none can be read.
        """
        self.wait()
        while numbers := ([number] if number is not None else json.loads(said_by_first(json.dumps(self.numbers())))):
            found, reason = self._try(numbers[-1], like)
            reasons = meet(reason)
            if found is not None and not reasons and not (reasons := meet(_damage(found))):
                return found
            found = None  # or its arrays would lie on the devices beside the next one's
            with no_late_words():
                self._manager.close()
            if len(numbers) < 2 and number is None:
                self._manager = self._open()
                raise JclipError(
                    f"{self._folder / str(numbers[-1])} cannot be read ({reasons[0]}), and there is no other: restore "
                    "it from a copy, or start again with another --workdir"
                )
            first(lambda damaged=numbers[-1]: self._set_aside(damaged))  # type: ignore[misc]
            instead = "the one before it is taken" if number is None else "is not used"
            warn(
                f"the checkpoint {self._folder / str(numbers[-1])} is damaged ({reasons[0]}): it was moved to "
                f"{self._folder.parent / _ASIDE}, and {instead}"
            )
            self._manager = self._open()
            if number is not None:
                break
        return None

    def close(self) -> None:
        """Waits for the last one to be written, and releases orbax's threads."""
        try:
            self._wait()  # alone: on the way out the others need not come here
        finally:
            self._manager.close()
            self._stack.close()

    def _open(self) -> ocp.CheckpointManager:
        manager = open_manager(self._path, self._keep, self.best)
        # All processes must agree on the best, so that one of them reads the scores.
        scores = {number: self._score_of(number) for number in manager.all_steps()} if is_first() else {}
        told = json.loads(said_by_first(json.dumps(list(scores.items()))))
        self._scores = {number: score for number, score in told if score is not None}
        return manager

    def _score_of(self, number: int) -> float | None:
        try:
            score: float | None = self._facts(number)[0]["score"]
        except Exception:  # of whatever kind damage is; it is named when the checkpoint is to be read
            return None
        return score

    def _facts(self, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A checkpoint's record and journal, by this process alone.

        Raises:
          JclipError: an older jclip wrote them.
          ValueError, OSError, …: they are not there, or not what was written.
        """
        record, journal = (
            json.loads((self._folder / str(number) / name / _JSON).read_text(encoding="utf-8"))
            for name in ("record", "journal")
        )
        if {"config", "step"} <= set(record) and not {"seal", "score"} & set(record):  # no single byte does that
            raise JclipError(f"{self._folder} was written by an older jclip: choose another --workdir")
        if record.pop("seal", None) != _seal(record, journal) or _position(record).number != number:
            raise ValueError("its record or its journal is not what was saved")
        return record, journal

    def _try(self, number: int, like: Callable[[Position, dict[str, Any]], Any]) -> tuple[Restored | None, str | None]:
        """What this process reads of the checkpoint, or why it cannot."""
        appears(self._folder / str(number))
        try:
            record, journal = self._facts(number)
        except Exception as error:
            return None, _reason(error)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like(_position(record), record))
        places = ocp.checkpoint_utils.construct_restore_args(target)
        reader = state_handler()
        try:
            asked = ocp.args.PyTreeRestore(target, places)
            state = reader.restore(self._path / str(number) / "state", args=asked)
        except Exception as error:
            return None, _reason(error)
        finally:
            reader.close()
        return Restored(_position(record), record, journal, state), None

    def _set_aside(self, number: int) -> None:
        place = self._folder.parent / _ASIDE
        place.mkdir(exist_ok=True)
        shutil.rmtree(place / str(number), ignore_errors=True)
        (self._folder / str(number)).rename(place / str(number))

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_halves()  # of a process that was killed while it wrote
        except OSError as error:
            raise JclipError(
                f"{self._folder} cannot hold checkpoints ({error.strerror}): mend that, or choose another --workdir"
            ) from None

    def _wait(self) -> None:
        with self._named():
            self._manager.wait_until_finished()

    def _check_writable(self) -> None:
        """Finds on the first process what orbax would meet there, while the others wait on the devices."""
        with self._named():
            if shutil.disk_usage(self._folder).free < self._size:
                raise self._full()
            probe = self._folder / f"0{_HALF}-probe"
            probe.mkdir(exist_ok=True)
            probe.rmdir()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except JclipError:
            raise
        except (OSError, ValueError) as error:  # a ValueError is tensorstore's, out of a thread
            time.sleep(_LATE)
            if is_full_disk(error):
                self._remove_halves()
                failure = self._full()
                saving.tell_failure(str(failure))
                raise failure from error
            reason = getattr(error, "strerror", None) or _first_line(error).replace(str(self._path), str(self._folder))
            failure = JclipError(
                f"{self._folder}: a checkpoint cannot be written ({reason}; {self._safe()}): mend that and run again"
            )
            saving.tell_failure(str(failure))
            raise failure from error

    def _full(self) -> JclipError:
        size = f"{self._size / 2**20:.0f} MiB"
        return JclipError(
            f"no space for a checkpoint of {size} in {self._folder} ({self._safe()}): free some and run again"
        )

    def _safe(self) -> str:
        there = [number for number in self.numbers() if (self._folder / str(number)).is_dir()]
        return f"the checkpoint {there[-1]} is safe" if there else "there is none from before"

    def _remove_halves(self) -> None:
        for half in self._folder.glob(f"*{_HALF}*"):
            shutil.rmtree(half, ignore_errors=True)


def _seal(record: dict[str, Any], journal: list[dict[str, Any]]) -> str:
    text = json.dumps([record, journal], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _damage(found: Restored) -> str | None:
    """What is not as it was saved; of an array in copies, the copies of this process."""
    was, now = found.record["checksums"], checksums(found.state)
    changed = [path for path, value in was.items() if now.get(path) != value]
    if changed or len(now) != len(was):
        return f"{changed[0] if changed else 'its list of arrays'} is not what was saved"
    return None


def _position(record: dict[str, Any]) -> Position:
    return Position(record["stage"], record["step"], record["total"])


def _reason(error: Exception) -> str:
    """What is wrong with a checkpoint, for an error of reading it.

    Raises:
      Exception: the error itself, where it is not the checkpoint's: no memory for it, no leave to read it, …
    """
    if isinstance(error, JclipError | MemoryError | jax.errors.JaxRuntimeError) or (
        isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError)
    ):
        raise error
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
