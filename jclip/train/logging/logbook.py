"""All that a run says of itself, in one: metrics.jsonl, the boards, and whoever watches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jclip.errors import JclipError
from jclip.io.files import is_full_disk
from jclip.parallel.processes import first, is_first
from jclip.train.configuration import Run
from jclip.train.logging.boards import Board, TensorBoard, WandB
from jclip.train.logging.telemetry import Journal, Watcher


class Logbook:
    """What was measured so far, on every process; the first writes it down.

    Its methods are called on all processes in step.

    Args:
      run: whose.
      workdir: of the run.
      config: of the run as JSON, for Weights & Biases.
      watcher: the first process's is told of every record.
    """

    def __init__(self, run: Run, workdir: Path, config: Mapping[str, Any], watcher: Watcher | None = None):
        self._run, self._workdir, self._config, self._watcher = run, workdir, config, watcher
        self._journal = Journal(None)
        self._boards: list[Board] = []

    def begin(self, records: Sequence[dict[str, Any]], total: int) -> None:
        """Opens the files, with what a checkpoint of `total` steps holds.

        Raises:
          JclipError: Weights & Biases is asked for and cannot begin; or the disk is full.
        """
        self._journal = Journal(None, records)
        first(lambda: self._open(total))

    @property
    def records(self) -> list[dict[str, Any]]:
        """All of them, for a checkpoint."""
        return self._journal.records

    def unreadable(self, stage: str) -> list[str]:
        """What was replaced in a stage so far, in words."""
        noted = (
            each["pictures"] for each in self.records if (each["kind"], each.get("stage")) == ("unreadable", stage)
        )
        return [words for pictures in noted for words in pictures]

    def has(self, kind: str, total: int) -> bool:
        """Whether the record of that kind and step is there."""
        return self._journal.has(kind, total)

    def write(self, kind: str, total: int, figures: Mapping[str, Any]) -> None:
        """Notes one record, unless the one of that kind and step is there already.

        Raises:
          JclipError: the disk is full.
        """
        if kind != "warning" and self._journal.has(kind, total):
            return
        first(lambda: self._put_down(kind, total, figures))
        if not is_first():
            self._journal.write(kind, total, figures)

    def close(self) -> None:
        """Closes the files."""
        self._journal.close()
        for board in self._boards:
            board.close()

    def _open(self, total: int) -> None:
        try:
            self._journal = Journal(self._workdir / "metrics.jsonl", self._journal.records)
            self._boards.append(TensorBoard(self._workdir / "tensorboard", total))
        except OSError as error:
            raise self._named(error) from error
        if project := self._run.monitor.wandb:
            self._boards.append(WandB(project, self._run.name, self._config, self._workdir, total))

    def _put_down(self, kind: str, total: int, figures: Mapping[str, Any]) -> None:
        try:
            record = self._journal.write(kind, total, figures)
            if record is None:
                return
            for board in self._boards:
                board.show(record)
        except OSError as error:
            raise self._named(error) from error
        if self._watcher:
            self._watcher.logged(record)

    def _named(self, error: OSError) -> Exception:
        if not is_full_disk(error):
            return error
        return JclipError(f"no space for the metrics in {self._workdir}: free some and run again")
