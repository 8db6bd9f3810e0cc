"""Log of a run: its records on every process; files, boards and the watcher on process 0."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jclip.checkpoint import Position
from jclip.errors import JclipError
from jclip.io.files import is_full_disk
from jclip.parallel.processes import on_first
from jclip.train.configuration import Run
from jclip.train.logging.progress import Watcher
from jclip.train.logging.sinks import MetricsFile, Sink, TensorBoard, WandB


class RunLog:
    """Records of a run, in order and without repeats after a resume. All processes call its methods together.

    `config` is the run's as JSON, for Weights & Biases. `watcher` receives every record on process 0. The attribute
    `records` has all records so far, for checkpoints.
    """

    def __init__(self, run: Run, workdir: Path, config: Mapping[str, Any], watcher: Watcher | None = None):
        self._run, self._workdir, self._config, self._watcher = run, workdir, config, watcher
        self.records: list[dict[str, Any]] = []
        self._keys: set[tuple[Any, ...]] = set()
        self._sinks: list[Sink] = []

    def open(self, records: Sequence[dict[str, Any]], total: int) -> None:
        """Opens the outputs with the records of a checkpoint after `total` steps.

        Raises JclipError if the disk is full, or Weights & Biases cannot start.
        """
        self.records = list(records)
        self._keys = set(map(_key, records))
        on_first(lambda: self._open(total))

    def has(self, kind: str, total: int) -> bool:
        """Returns whether a record of that kind and step was written."""
        return _key({"kind": kind, "total": total}) in self._keys

    def unreadable(self, stage: str) -> list[str]:
        """Returns the descriptions of the images that were replaced in a stage so far."""
        written = (
            each["pictures"] for each in self.records if (each["kind"], each.get("stage")) == ("unreadable", stage)
        )
        return [description for pictures in written for description in pictures]

    def write(self, kind: str, position: Position, figures: Mapping[str, Any]) -> None:
        """Writes a record, unless that kind was written at this step. A step may have several different warnings.

        Raises JclipError if the disk is full.
        """
        stage = self._run.stages[min(position.stage, len(self._run.stages) - 1)]
        record = {"kind": kind, "total": position.total, "stage": stage.name, "step": position.step, **figures}
        if (key := _key(record)) in self._keys:
            return
        self._keys.add(key)
        self.records.append(record)
        on_first(lambda: self._output(record))

    def close(self) -> None:
        """Closes the outputs."""
        for sink in self._sinks:
            sink.close()

    def _open(self, total: int) -> None:
        try:
            self._sinks.append(MetricsFile(self._workdir / "metrics.jsonl", self.records))
            self._sinks.append(TensorBoard(self._workdir / "tensorboard", total))
        except OSError as error:
            raise self._explained(error) from error
        if project := self._run.monitor.wandb:
            self._sinks.append(WandB(project, self._run.name, self._config, self._workdir, total))

    def _output(self, record: dict[str, Any]) -> None:
        try:
            for sink in self._sinks:
                sink.write(record)
        except OSError as error:
            raise self._explained(error) from error
        if self._watcher:
            self._watcher.logged(record)

    def _explained(self, error: OSError) -> Exception:
        if not is_full_disk(error):
            return error
        return JclipError(f"no space for the metrics in {self._workdir}: free some and run again")


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["kind"], record["total"], record["message"] if record["kind"] == "warning" else None
