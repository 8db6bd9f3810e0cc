"""Folder of a run, and the signals that stop it."""

import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from jclip.checkpoint import Position
from jclip.errors import JclipError
from jclip.parallel.processes import (
    broadcast,
    everywhere,
    is_first_process,
    is_single_process,
    on_first,
    wait_until_visible,
)
from jclip.train.configuration import Run


def bundle_folder(workdir: Path, run: Run, stage: int) -> Path:
    """Returns the folder of a finished stage's bundle: WORKDIR/1-teacher, WORKDIR/2-contrastive."""
    return workdir / f"{stage + 1}-{run.stages[stage].name}"


@contextmanager
def exclusive(workdir: Path) -> Iterator[None]:
    """Creates the folder and locks it against a second run, which would delete this one's checkpoints.

    Raises JclipError if another run uses the folder, or not all processes of this run see the same one.
    """
    with ExitStack() as stack:
        on_first(lambda: _enter(workdir, stack))
        _check_shared(workdir)
        yield


def _check_shared(workdir: Path) -> None:
    """Checks that every process sees a file that process 0 writes."""
    if is_single_process():
        return
    token = workdir / f".{broadcast(uuid.uuid4().hex)}.token"
    on_first(token.touch)

    def look() -> None:
        if not wait_until_visible(token):
            raise JclipError(
                f"{workdir} is not the folder that process 0 sees: give all processes the same one, on a shared disk"
            )

    try:
        everywhere(look)
    finally:
        if is_first_process():
            token.unlink(missing_ok=True)


@dataclass
class StopRequest:
    """Request to stop a run.

    Attributes:
      signals: signals that this process received.
      after: number of steps, over all stages, after which to stop; None for no limit.
      signal: signal that stops the run, once all processes know of it.
    """

    signals: list[int]
    after: int | None = None
    signal: int | None = None

    def is_due(self, position: Position) -> bool:
        """Returns whether the run should stop; equal on all processes."""
        return self.signal is not None or (self.after is not None and position.total >= self.after)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list that collects SIGINT, SIGTERM and SIGHUP, which then do not interrupt a step.

    A second SIGINT raises KeyboardInterrupt. SIGHUP, sent when the terminal closes, stays ignored under nohup.
    """
    received: list[int] = []
    kinds = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        kinds.append(signal.SIGHUP)

    terminal = [stream for stream in (0, 1, 2) if os.isatty(stream)]

    def note(number: int, _: Any) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            _redirect_to_null(terminal)
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {kind: signal.signal(kind, note) for kind in kinds}
    except ValueError:  # not the main thread, which alone receives signals
        previous = {}
    try:
        yield received
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _redirect_to_null(streams: Sequence[int]) -> None:
    """Redirects streams to the null device, because writes to a closed terminal raise."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(null, stream)
    os.close(null)


def _enter(workdir: Path, stack: ExitStack) -> None:
    """Creates and locks the folder. The lock ends with the process, even if it is killed."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return
        file = stack.enter_context((workdir / ".lock").open("w", encoding="utf-8"))
    except OSError as error:
        raise JclipError(
            f"{workdir} cannot be written to ({error.strerror}): free some space, or choose another --workdir"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JclipError(f"another run is using {workdir}: wait until it ends, or choose another --workdir") from None
