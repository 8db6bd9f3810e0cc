"""Checkpoints of a run, through all its stages, written by orbax in the background.

A checkpoint holds every array of the training state, a JSON record of the position, and the log's records so far.
Orbax writes into a temporary folder and renames it, so a checkpoint is complete or absent. The record has a checksum of
every array, and one of itself and of the log. A checkpoint that was damaged later is moved away, and the one before it
is restored.

Every process reads its own shards without waiting for the others, and then reports success or failure to them.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jclip.errors import JclipError, first_line
from jclip.internals import no_orbax_tracebacks, orphaned_readers_end
from jclip.io.files import is_full_disk
from jclip.io.json_files import read_object
from jclip.orbax_manager import literal_path, open_manager, state_handler
from jclip.parallel.checksum import checksums
from jclip.parallel.processes import broadcast, everywhere, gather, is_first_process, on_first, wait_until_visible
from jclip.parallel.writers import break_barriers

_LATE = 0.5  # seconds for the other writers of a failed checkpoint to end
_DAMAGED = "damaged"  # folder for damaged checkpoints
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint that is being written
_JSON = "metadata"  # orbax's name for the file of a JSON item


@dataclass(frozen=True)
class Position:
    """Position of a run: index of the stage, steps done in it, and steps done in all stages together."""

    stage: int
    step: int
    total: int

    @property
    def number(self) -> int:
        """Number of the checkpoint. Unlike `total`, it grows between a stage's last step and the next one's start."""
        return self.total + self.stage

    def stepped(self) -> "Position":
        """Returns the position after one more step."""
        return Position(self.stage, self.step + 1, self.total + 1)


class Restored(NamedTuple):
    """Checkpoint that was read: its position, its record, the log's records and the state."""

    position: Position
    record: dict[str, Any]
    journal: list[dict[str, Any]]
    state: Any


class Checkpoints:
    """Checkpoint manager of one run, which keeps the newest `keep` checkpoints and the one with the highest score.

    All processes of a run call its methods together.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self._folder, self._keep = folder, keep
        self._scores: dict[int, float] = {}
        self._size = 0
        with ExitStack() as stack:
            on_first(self._make)
            self._path = everywhere(lambda: stack.enter_context(literal_path(folder)))
            self._manager = self._open()
            stack.enter_context(no_orbax_tracebacks())
            self._stack = stack.pop_all()

    def save(
        self,
        position: Position,
        state: Any,
        record: dict[str, Any],
        journal: Sequence[dict[str, Any]] = (),
        score: float | None = None,
    ) -> None:
        """Copies the state, and writes the copy in the background. Skips a position that was saved before.

        `record` and `journal` (the log's records so far) are JSON-ready. The checkpoint with the highest `score` stays
        on disk.

        Raises JclipError if this checkpoint or the one before cannot be written, for example because the disk is full.
        Earlier checkpoints are unchanged, and no unfinished one is left.
        """
        self.wait()
        if position.number in self._manager.all_steps():
            return
        self._size = sum(np.prod(leaf.shape, dtype=np.int64) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        on_first(self._check_writable)
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
        with self._explained():
            self._manager.save(position.number, args=arguments)

    def wait(self) -> None:
        """Waits, on all processes, until the last checkpoint is on disk. Raises JclipError if it cannot be written."""
        everywhere(self._wait)

    def numbers(self) -> list[int]:
        """Returns the numbers of the checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """Returns the number of the newest checkpoint with the highest score; None without scores."""
        scored = [number for number in self.numbers() if number in self._scores]
        return max(scored, key=lambda number: (self._scores[number], number), default=None)

    def best_score(self) -> float | None:
        """Returns the highest score; None without scores."""
        number = self.best()
        return None if number is None else self._scores[number]

    def restore(
        self,
        like: Callable[[Position, dict[str, Any]], Any],
        number: int | None = None,
        warn: Callable[[str], None] = print,
    ) -> Restored | None:
        """Reads the newest undamaged checkpoint, or checkpoint `number`; returns None if it does not exist.

        Damaged checkpoints are moved to the folder "damaged", and `warn` is called with a line for each. Checkpoint
        `number` then counts as missing. Without `number`, raises JclipError if all are damaged.

        Args:
          like: (position, record) -> the state's shapes, dtypes and shardings. Raises if the checkpoint is another
            run's, which is not damage.
        """
        self.wait()
        while numbers := ([number] if number is not None else broadcast(self.numbers())):
            found, reason = self._try(numbers[-1], like)
            reasons = gather(reason)
            if found is not None and not reasons and not (reasons := gather(_damage(found))):
                return found
            found = None  # frees its arrays before the next one is read
            with orphaned_readers_end():
                self._manager.close()
            if len(numbers) < 2 and number is None:
                self._manager = self._open()
                raise JclipError(
                    f"{self._folder / str(numbers[-1])} cannot be read ({reasons[0]}), and it is the only checkpoint: "
                    "restore it from a copy, or start again with another --workdir"
                )
            on_first(lambda damaged=numbers[-1]: self._set_aside(damaged))  # type: ignore[misc]
            instead = "the one before it is used" if number is None else "is not used"
            warn(
                f"the checkpoint {self._folder / str(numbers[-1])} is damaged ({reasons[0]}): it was moved to "
                f"{self._folder.parent / _DAMAGED}, and {instead}"
            )
            self._manager = self._open()
            if number is not None:
                break
        return None

    def close(self) -> None:
        """Waits for the last checkpoint, and ends orbax's threads."""
        try:
            self._wait()  # not `everywhere`: after an error the other processes may not close
        finally:
            self._manager.close()
            self._stack.close()

    def _open(self) -> ocp.CheckpointManager:
        manager = open_manager(self._path, self._keep, self.best)
        # Read by process 0 only, so that all processes agree on the best.
        scores = [(number, self._score_of(number)) for number in manager.all_steps()] if is_first_process() else []
        self._scores = {number: score for number, score in broadcast(scores) if score is not None}
        return manager

    def _score_of(self, number: int) -> float | None:
        try:
            score: float | None = self._facts(number)[0]["score"]
        except Exception:  # the checkpoint is damaged; `restore` reports it
            return None
        return score

    def _facts(self, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Reads a checkpoint's record and journal on this process; raises an error if one is missing or damaged."""
        record, journal = (
            json.loads((self._folder / str(number) / name / _JSON).read_text(encoding="utf-8"))
            for name in ("record", "journal")
        )
        if record.pop("seal", None) != _seal(record, journal) or _position(record).number != number:
            raise ValueError("its record or its journal is not what was saved")
        return record, journal

    def _try(self, number: int, like: Callable[[Position, dict[str, Any]], Any]) -> tuple[Restored | None, str | None]:
        """Reads this process's shards of a checkpoint; returns (checkpoint, None) or (None, reason)."""
        wait_until_visible(self._folder / str(number))
        try:
            record, journal = self._facts(number)
        except Exception as error:
            return None, _reason(error)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like(_position(record), record))
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
        reader = state_handler()
        try:
            arguments = ocp.args.PyTreeRestore(target, restore_args)
            state = reader.restore(self._path / str(number) / "state", args=arguments)
        except Exception as error:
            return None, _reason(error)
        finally:
            reader.close()
        return Restored(_position(record), record, journal, state), None

    def _set_aside(self, number: int) -> None:
        place = self._folder.parent / _DAMAGED
        place.mkdir(exist_ok=True)
        shutil.rmtree(place / str(number), ignore_errors=True)
        (self._folder / str(number)).rename(place / str(number))

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()  # left by a killed process
        except OSError as error:
            raise JclipError(
                f"{self._folder} cannot hold checkpoints ({error.strerror}): fix that, or choose another --workdir"
            ) from None

    def _wait(self) -> None:
        with self._explained():
            self._manager.wait_until_finished()

    def _check_writable(self) -> None:
        """Raises write errors before orbax starts; after that, the other processes would wait on the devices."""
        with self._explained():
            if shutil.disk_usage(self._folder).free < self._size:
                raise self._full()
            probe = self._folder / f"0{_UNFINISHED}-probe"
            probe.mkdir(exist_ok=True)
            probe.rmdir()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns write errors into JclipErrors, and stops the writers of the other processes."""
        try:
            yield
        except JclipError:
            raise
        except (OSError, ValueError) as error:  # tensorstore raises ValueError in a thread
            time.sleep(_LATE)
            if is_full_disk(error):
                self._remove_unfinished()
                failure = self._full()
                break_barriers(str(failure))
                raise failure from error
            reason = getattr(error, "strerror", None) or first_line(error).replace(str(self._path), str(self._folder))
            failure = JclipError(
                f"{self._folder}: a checkpoint cannot be written ({reason}; {self._safe()}): fix that and run again"
            )
            break_barriers(str(failure))
            raise failure from error

    def _full(self) -> JclipError:
        size = f"{self._size / 2**20:.0f} MiB"
        return JclipError(
            f"no space for a checkpoint of {size} in {self._folder} ({self._safe()}): free some and run again"
        )

    def _safe(self) -> str:
        saved = [number for number in self.numbers() if (self._folder / str(number)).is_dir()]
        return f"the checkpoint {saved[-1]} is safe" if saved else "no earlier one exists"

    def _remove_unfinished(self) -> None:
        for folder in self._folder.glob(f"*{_UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)


def newest_record(folder: Path) -> dict[str, Any]:
    """Returns the record of the newest checkpoint in a folder whose record can be read; empty if there is none."""
    for place in sorted(folder.glob("[0-9]*"), key=lambda place: int(place.name) if place.name.isdigit() else -1)[::-1]:
        with suppress(JclipError):
            return read_object(place / "record" / _JSON)
    return {}


def _seal(record: dict[str, Any], journal: list[dict[str, Any]]) -> str:
    text = json.dumps([record, journal], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _damage(found: Restored) -> str | None:
    """Returns a message that names the first array whose checksum differs; None if all are equal.

    Processes may differ, because each checks its own copy of a replicated array.
    """
    was, now = found.record["checksums"], checksums(found.state)
    changed = [path for path, value in was.items() if now.get(path) != value]
    if changed or len(now) != len(was):
        return f"{changed[0] if changed else 'its list of arrays'} is not what was saved"
    return None


def _position(record: dict[str, Any]) -> Position:
    return Position(record["stage"], record["step"], record["total"])


def _reason(error: Exception) -> str:
    """Returns the reason why a checkpoint counts as damaged.

    Raises `error` itself if the checkpoint may be intact: no memory, no permission.
    """
    if isinstance(error, MemoryError | jax.errors.JaxRuntimeError) or (
        isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError)
    ):
        raise error
    return first_line(error)
