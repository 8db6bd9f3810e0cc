"""Progress of a run for people: a live bar in a terminal, lines in a pipe."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jclip.console import Console, description
from jclip.plain import shown
from jclip.stages import Figure
from jclip.train.scores import Scores
from jclip.units import format_duration


class Watcher(Protocol):
    """Observer of a run, such as a progress bar or a test."""

    def stage_begins(
        self, name: str, step: int, steps: int, *, number: int = 1, count: int = 1, figures: Sequence[Figure] = ()
    ) -> None:
        """Reports that stage `number` of `count` begins, or resumes after `step`, with its objective's `figures`."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Reports a record of metrics.jsonl."""

    def stepped(self, step: int) -> None:
        """Reports that `step` steps of the stage are done."""


class ProgressWatcher:
    """A progress bar with one row per stage; in a pipe, a line whenever figures are logged.

    Args:
      title: name of the run.
      lines: approximate number of lines of a stage in a pipe; None for one per record.
      scores: evaluations of the run so far.
    """

    def __init__(self, console: Console, title: str, lines: int | None = None, scores: Scores | None = None):
        self._console, self._title, self._lines, self._printed = console, shown(title), lines, -math.inf
        self._scores = scores or Scores()
        self._task: TaskID | None = None
        self._name, self._steps = "", 0
        self._pace: _Pace | None = None
        self._bar = Progress(
            description(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "ProgressWatcher":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(*_CLOSED):
            self._bar.stop()

    def stage_begins(
        self, name: str, step: int, steps: int, *, number: int = 1, count: int = 1, figures: Sequence[Figure] = ()
    ) -> None:
        """Adds a row."""
        self._figures = (("loss", "loss", ".4g"), *figures, *_FIGURES)
        self._name = f"stage {number}/{count} {shown(name)}" if count > 1 else shown(name)
        self._steps, self._printed, self._pace = steps, -math.inf, None
        self._task = self._bar.add_task(f"{self._title} · {self._name}", total=steps, completed=step, note="")

    def stepped(self, step: int) -> None:
        """Moves the bar."""
        self._pace = self._pace or _Pace(step, time.monotonic())  # after the first step, which compiles
        if self._task is not None:
            with suppress(*_CLOSED):
                self._bar.update(self._task, completed=step)

    def logged(self, record: Mapping[str, Any]) -> None:
        """Prints data sources, figures, warnings and replaced images."""
        with suppress(*_CLOSED):  # training goes on without its terminal or pipe
            self._show(record)

    def _show(self, record: Mapping[str, Any]) -> None:
        for source in record.get("reads", ()):
            self._console.tell(source)
        for picture in record.get("pictures", ()):
            self._console.tell(f"replaced: {picture}")
        if record["kind"] == "devices":
            self._console.tell(f"parameters over {record['parameters']}")
        if record["kind"] == "remat" and record["reason"] and record["remat"] != record["least"]:
            self._console.tell(f"{record['stage']}: remat {record['remat']}: {record['reason']}")
        if record["kind"] == "warning":
            self._console.tell(f"warning: {record['message']}")
        if record["kind"] == "evaluation":
            self._console.tell(self._scores.line(record))
        if record["kind"] != "train" or self._task is None:
            return
        note = "  ".join(f"{word} {record[name]:{form}}" for name, word, form in self._figures if name in record)
        self._bar.update(self._task, note=note)
        too_soon = self._lines and record["step"] < self._printed + self._steps / self._lines
        if not self._console.is_terminal and not too_soon:
            self._printed = record["step"]
            left = self._pace.left(record["step"], self._steps, time.monotonic()) if self._pace else ""
            self._console.tell(f"{self._title} · {self._name} {record['step']}/{self._steps}{left}  {note}")


class _Pace:
    """Speed of a stage since one of its steps."""

    def __init__(self, step: int, begun: float):
        self._step, self._begun = step, begun

    def left(self, step: int, steps: int, now: float) -> str:
        """Returns " (about 5 min left)" for the rest of the stage; "" if it is done or the pace is not known yet."""
        if not self._step < step < steps:
            return ""
        return f" (about {format_duration((now - self._begun) / (step - self._step) * (steps - step))} left)"


_CLOSED = (OSError, SystemExit)  # raised by writes to a closed terminal or pipe; SystemExit is rich's

_FIGURES: tuple[Figure, ...] = (
    ("gradient_norm", "grad", ".3g"),
    ("learning_rate", "lr", ".3g"),
    ("pairs_per_second_per_device", "pairs/s/device", ".4g"),
    ("mfu", "MFU", ".1%"),
    ("data_wait", "wait", ".0%"),
    ("padding", "pad", ".0%"),
)
