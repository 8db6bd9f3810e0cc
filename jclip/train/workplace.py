"""A run's folder, and the signals that reach it."""

import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from jclip.errors import JclipError
from jclip.parallel.processes import alone, appears, first, is_first, said_by_first, together
from jclip.train.configuration import Run


def bundle_folder(workdir: Path, run: Run, stage: int) -> Path:
    """Where the bundle of a finished stage lies: WORKDIR/1-teacher, WORKDIR/2-contrastive."""
    return workdir / f"{stage + 1}-{run.stages[stage].name}"


@contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Makes the folder and keeps a second run out of it: each would delete the other's checkpoints.

    Raises:
      JclipError: another run is in it, or not all processes of this one see the same folder.
    """
    with ExitStack() as stack:
        first(lambda: _enter(workdir, stack))
        _check_shared(workdir)
        yield


def _check_shared(workdir: Path) -> None:
    """What the first process writes there, all must find there."""
    if alone():
        return
    token = workdir / f".{said_by_first(uuid.uuid4().hex)}.token"
    first(token.touch)

    def look() -> None:
        if not appears(token):
            raise JclipError(
                f"{workdir} is not the folder that the first process sees: give all the same one, on a shared disk"
            )

    try:
        together(look)
    finally:
        if is_first():
            token.unlink(missing_ok=True)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Yields a list that the first Ctrl-C, SIGTERM or SIGHUP fills; a step is never cut in two.

    A second Ctrl-C acts at once. SIGHUP, which a terminal sends when it goes, stays ignored under nohup.
    """
    received: list[int] = []
    kinds = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        kinds.append(signal.SIGHUP)

    terminal = [stream for stream in (0, 1, 2) if os.isatty(stream)]

    def note(number: int, _: Any) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            _turn_away(terminal)
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {kind: signal.signal(kind, note) for kind in kinds}
    except ValueError:  # signals reach the main thread only; elsewhere a run is stopped by its caller
        previous = {}
    try:
        yield received
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _turn_away(streams: Sequence[int]) -> None:
    """Points streams whose terminal is gone to nowhere: each write to them would be an error."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _enter(workdir: Path, stack: ExitStack) -> None:
    """Makes and locks the folder; the lock goes with the process, however it ends."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return
        file = stack.enter_context((workdir / ".lock").open("w", encoding="utf-8"))
    except OSError as error:
        raise JclipError(
            f"{workdir} cannot be written to ({error.strerror}): free some space there, or choose another --workdir"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JclipError(f"another run is at work in {workdir}: let it finish, or choose another folder") from None
