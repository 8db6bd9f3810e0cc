"""Where a run's figures can be looked at: TensorBoard always, Weights & Biases by option."""

import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from jclip.errors import JclipError
from jclip.plain import shown


class Board(Protocol):
    """Something that shows figures over steps."""

    def show(self, record: Mapping[str, Any]) -> None:
        """Takes a line of metrics.jsonl."""

    def close(self) -> None:
        """Writes what is not written yet."""


class TensorBoard:
    """Event files in WORKDIR/tensorboard: `tensorboard --logdir WORKDIR`.

    They are written at once, without the thread that tensorboardX's own SummaryWriter has: when the disk is full, that
    one dies, and whoever logs waits for it for ever.
    """

    def __init__(self, folder: Path, total: int):
        """Opens a new one; what the older ones have beyond `total` steps is hidden, for the run writes it again."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # No two of a folder may have the same name, however soon a run begins again.
        file = folder / f"events.out.tfevents.{int(time.time())}.{platform.node()}.{uuid.uuid4().hex[:8]}"
        self._event, self._writer = Event, RecordWriter(str(file))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if total:
            begins = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=total + 1, session_log=begins))

    def show(self, record: Mapping[str, Any]) -> None:
        """Takes a line of metrics.jsonl."""
        event = self._event(wall_time=time.time(), step=record["total"])
        for name, value in _figures(record):
            event.summary.value.add(tag=shown(name), simple_value=value)
        self._write(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file; what could not be written was said when it was to be shown."""
        with suppress(OSError):
            self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


class WandB:
    """A run of Weights & Biases; a resumed run goes on in the same one."""

    def __init__(self, project: str, name: str, config: Mapping[str, Any], workdir: Path, total: int):
        """Opens it, at `total` steps.

        Raises:
          JclipError: wandb is not installed, or cannot begin a run.
        """
        try:
            import wandb
        except ImportError:
            raise JclipError("wandb is not installed: pip install 'jclip[wandb]', or leave `wandb` empty") from None
        file = workdir / "wandb_id"
        if not total or not file.is_file():  # what begins again is another run there
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
        except Exception as error:  # its own kinds, of which it has many
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise JclipError(f"wandb cannot begin a run ({reason}): log in, or set WANDB_MODE=offline") from None

    def show(self, record: Mapping[str, Any]) -> None:
        """Takes a line of metrics.jsonl."""
        if figures := {shown(name): value for name, value in _figures(record)}:
            self._run.log(figures, step=record["total"])

    def close(self) -> None:
        """Writes what is not written yet."""
        self._run.finish()


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(train/loss, 1.5), … of a record: its numbers, but for those that say where it stands."""
    for name, value in record.items():
        if isinstance(value, int | float) and name not in ("total", "step"):
            yield f"{record['kind']}/{name}", float(value)
