"""What a run says of itself: metrics.jsonl for programs, a live line for people."""

import errno
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
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
from jclip.io.json_files import decode
from jclip.plain import as_json, shown
from jclip.train.scores import Scores


class Watcher(Protocol):
    """Whoever wants to see a run: the progress bar, a test, the demo."""

    def stage_begins(self, name: str, step: int, steps: int) -> None:
        """A stage begins or resumes at `step` of `steps`."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """A line went to metrics.jsonl."""

    def stepped(self, step: int) -> None:
        """`step` steps of the stage are done."""


class Journal:
    """metrics.jsonl of a run: one JSON object a line, in the order of the run, without repeats after a resume."""

    def __init__(self, path: Path | None, records: Sequence[dict[str, Any]] = ()):
        """Makes the file anew of the records that a checkpoint holds: a resumed run writes the later ones again.

        Args:
          path: where; None for a process that writes none, but knows what is written.
          records: so far.
        """
        self.records = list(records)
        self._last = {_key(record["kind"], record["total"], record) for record in self.records}
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(b"".join(map(_line, self.records)))
            partial.replace(path)
            self._file = path.open("ab", buffering=0)  # nothing waits in a buffer that would fail again when closed

    def write(self, kind: str, total: int, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Appends one record unless the one of that kind and step is there already; returns what it wrote.

        Of warnings there may be several at a step, each once.
        """
        if (key := _key(kind, total, record)) in self._last:
            return None
        self._last.add(key)
        whole = {"kind": kind, "total": total, **record}
        self.records.append(whole)
        if self._file:
            line = _line(whole)
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        return whole

    def has(self, kind: str, total: int) -> bool:
        """Whether the record of that kind and step is there."""
        return _key(kind, total) in self._last

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl up to one that a crash cut off, in the middle of a letter perhaps."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = decode(line)
            records.append({**record, "kind": str(record["kind"]), "total": int(record["total"])})
        except (ValueError, TypeError, KeyError):
            break
    return records


class ProgressWatcher:
    """A rich progress bar, one row a stage; in a pipe, a line whenever something is logged.

    Args:
      console: where.
      title: of the run.
      lines: in a pipe, about so many a stage instead.
      scores: of the run so far.
    """

    def __init__(self, console: Console, title: str, lines: int | None = None, scores: Scores | None = None):
        self._console, self._title, self._lines, self._shown = console, shown(title), lines, -math.inf
        self._scores = scores or Scores()
        self._task: TaskID | None = None
        self._name, self._steps = "", 0
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
        with suppress(*_GONE):
            self._bar.stop()

    def stage_begins(self, name: str, step: int, steps: int) -> None:
        """Adds a row."""
        self._name, self._steps, self._shown = name, steps, -math.inf
        self._task = self._bar.add_task(f"{self._title} · {shown(name)}", total=steps, completed=step, note="")

    def stepped(self, step: int) -> None:
        """Moves the bar."""
        if self._task is not None:
            with suppress(*_GONE):
                self._bar.update(self._task, completed=step)

    def logged(self, record: Mapping[str, Any]) -> None:
        """Shows what is read, the newest figures, warnings, and pictures that had to be replaced."""
        with suppress(*_GONE):  # a terminal that is gone, or a closed pipe, is no reason to stop training
            self._show(record)

    def _show(self, record: Mapping[str, Any]) -> None:
        for source in record.get("reads", ()):
            self._console.tell(source)
        for picture in record.get("pictures", ()):
            self._console.tell(f"replaced: {picture}")
        if record["kind"] == "devices":
            self._console.tell(f"parameters over {record['parameters']}")
        if record["kind"] == "warning":
            self._console.tell(f"warning: {record['message']}")
        if record["kind"] == "evaluation":
            self._console.tell(self._scores.line(record))
        if record["kind"] != "train" or self._task is None:
            return
        note = "  ".join(f"{word} {record[name]:{form}}" for name, word, form in _SHOWN if name in record)
        self._bar.update(self._task, note=note)
        few = self._lines and record["step"] < self._shown + self._steps / self._lines
        if not self._console.is_terminal and not few:
            self._shown = record["step"]
            self._console.tell(f"{self._title} · {self._name} {record['step']}/{self._steps}  {note}")


_GONE = (OSError, SystemExit)  # of a write to a terminal or pipe that is gone; the second is rich's

_SHOWN = (
    ("loss", "loss", ".4g"),
    ("cosine", "cosine", ".3f"),
    ("text_to_image_r1", "R@1 t2i", ".3f"),
    ("image_to_text_r1", "i2t", ".3f"),
    ("scale", "scale", ".4g"),
    ("gradient_norm", "grad", ".3g"),
    ("learning_rate", "lr", ".3g"),
    ("pairs_per_second_per_device", "pairs/s/device", ".4g"),
    ("mfu", "MFU", ".1%"),
    ("data_wait", "wait", ".0%"),
    ("padding", "pad", ".0%"),
)


def _key(kind: str, total: int, record: Mapping[str, Any] | None = None) -> tuple[str, int, Any]:
    return kind, total, record["message"] if record and kind == "warning" else None


def _line(record: Mapping[str, Any]) -> bytes:
    return (as_json(record) + "\n").encode()
