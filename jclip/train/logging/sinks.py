"""Outputs of a run's records: metrics.jsonl and TensorBoard always, Weights & Biases by option."""

import errno
import os
import platform
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from jclip.errors import JclipError, first_line
from jclip.extras import reported_extras
from jclip.io.json_files import decode
from jclip.plain import as_json, shown


class Sink(Protocol):
    """An output of records."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record."""

    def close(self) -> None:
        """Writes what is buffered, and closes the output."""


class MetricsFile:
    """metrics.jsonl: one JSON object per line, in the order of the run.

    The file is replaced by the checkpoint's `records`, because a resumed run repeats those after its checkpoint.
    """

    def __init__(self, path: Path, records: Sequence[Mapping[str, Any]] = ()):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(b"".join(map(_line, records)))
        partial.replace(path)
        self._file = path.open("ab", buffering=0)  # a buffer would fail again when it is closed

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a line. Raises OSError if the line could not be written completely."""
        line = _line(record)
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl up to the first damaged line; returns an empty list if the file is missing."""
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


class TensorBoard:
    """Event files in WORKDIR/tensorboard: `tensorboard --logdir WORKDIR`.

    tensorboardX's own SummaryWriter is not used: its thread dies when the disk is full, and later calls block.
    TensorBoard hides records of older files after `total`, the steps of the run so far.
    """

    def __init__(self, folder: Path, total: int):
        with _without_torch():
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # File names must differ even if a run begins again within a second.
        file = folder / f"events.out.tfevents.{int(time.time())}.{platform.node()}.{uuid.uuid4().hex[:8]}"
        self._event, self._writer = Event, RecordWriter(str(file))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if total:
            begins = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=total + 1, session_log=begins))

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the figures of one record."""
        event = self._event(wall_time=time.time(), step=record["total"])
        for name, value in _figures(record):
            event.summary.value.add(tag=shown(name), simple_value=value)
        self._write(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file. Errors are ignored, because `write` has raised them."""
        with suppress(OSError):
            self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hides torch from tensorboardX, which imports it only for tensors: a second, and hundreds of megabytes."""
    if hidden := "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own mark of a module not to be found
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


class WandB:
    """A new or resumed run of Weights & Biases. Raises JclipError if wandb is not installed or cannot start."""

    def __init__(self, project: str, name: str, config: Mapping[str, Any], workdir: Path, total: int):
        with reported_extras("or set monitor.wandb to ''"):
            import wandb
        file = workdir / "wandb_id"
        if not total or not file.is_file():  # a run that starts anew gets a new id
            file.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=file.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=workdir,
                config=dict(config),
            )
        except Exception as error:  # wandb has many exception classes
            reason = first_line(error)
            raise JclipError(f"wandb cannot start a run ({reason}): log in, or set WANDB_MODE=offline") from None

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the figures of one record."""
        if figures := {shown(name): value for name, value in _figures(record)}:
            self._run.log(figures, step=record["total"])

    def close(self) -> None:
        """Uploads what is buffered."""
        self._run.finish()


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a record, except its position, as ("train/loss", 1.5)."""
    for name, value in record.items():
        if isinstance(value, int | float) and name not in ("total", "step"):
            yield f"{record['kind']}/{name}", float(value)


def _line(record: Mapping[str, Any]) -> bytes:
    return (as_json(record) + "\n").encode()
