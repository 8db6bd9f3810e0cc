"""Child processes with limits of time and memory. When one ends, everything that it started ends too."""

import os
import pickle
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jclip.io.machine import free_memory
from jclip.plain import shown
from jclip.units import format_duration, format_size

_SHARE = 0.9  # of the memory that is free when a process starts
_POLL = 0.25  # seconds
_TAIL = 1 << 20  # bytes at the end of what a process printed that are searched for its error
# A fatal line of Google's log, "F1201 02:57:07.000807 17252 target.cc:1735] Check failed"; and any line of that log,
# with the places in the source that libtpu prints below one.
_FATAL = re.compile(r"^F\d{4} [\d:.]+ +\d+ \S+\] (.*)", re.MULTILINE)
_LOGGED = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ |=== Source Location Trace|\S+\.(cc|h):\d+$")


class Died(Exception):
    """Error for a process that ended, or that was ended because it exceeded a limit. The message is one line."""


class LimitedProcess:
    """Process that receives and sends pickles over a socket, which is its standard input.

    So what it prints cannot mix with its messages. It has its own session, so Ctrl-C in a terminal does not reach it.
    The socket closes when the calling process ends.

    Args:
      command: the command.
      environment: its environment.
      memory: limit in bytes of its memory and that of its own processes; None for most of the memory that is free
        now.

    Raises Died if it cannot start.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], memory: int | None = None):
        self._memory = memory or int(_SHARE * free_memory())
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        self._reason = ""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setblocking(True)  # whatever the default timeout is
            self._requests, self._answers = ours.makefile("wb"), ours.makefile("rb")  # they keep `ours` open
            try:
                self._process = subprocess.Popen(
                    command,
                    env=dict(environment),
                    stdin=theirs.fileno(),
                    stdout=self._printed,
                    stderr=self._printed,
                    start_new_session=True,
                )
            except OSError as error:
                self._close()
                raise Died(f"it cannot start: {error.strerror}") from None

    def send(self, message: Any) -> None:
        """Sends a message. Raises Died if the process has ended."""
        try:
            pickle.dump(message, self._requests, protocol=5)
            self._requests.flush()
        except OSError:
            raise self._died() from None

    def receive(self) -> Any:
        """Waits for a message. Raises Died if the process ends before it is complete."""
        try:
            return pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._died() from None

    @contextmanager
    def within(self, seconds: float, more_time: str = "") -> Iterator[None]:
        """Ends the process if the block takes longer than `seconds`, or if its memory exceeds the limit meanwhile.

        `more_time` is advice for the user in the error after `seconds`, such as an option that allows more.
        """
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(seconds, more_time, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def end(self) -> None:
        """Kills the process and everything in its session."""
        with suppress(ProcessLookupError, PermissionError):  # macOS: the latter for a zombie
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self._requests, self._answers, self._printed):
            with suppress(OSError):  # a message that it has not read
                stream.close()

    def _watch(self, seconds: float, more_time: str, over: threading.Event) -> None:
        until = time.monotonic() + seconds
        while not over.wait(_POLL):
            if time.monotonic() > until:
                self._reason = f"it took longer than {format_duration(seconds)}{more_time and ': '}{more_time}"
            elif resident(self._process.pid) > self._memory:
                most = format_size(self._memory)
                self._reason = f"it needs more than {most} of this machine's memory: end other programs"
            if self._reason:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                return

    def _died(self) -> Died:
        """Ends the rest of the process, and returns an error with the reason for its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # its socket may close before it ends
        code, printed = self._process.poll(), self._error_line()
        self.end()
        if self._reason:
            return Died(self._reason)
        if code is not None and code < 0:
            if code == -signal.SIGKILL:  # it could not print why
                return Died("it was ended by SIGKILL, as systems do when memory runs out")
            with suppress(ValueError):
                return Died(f"it was ended by {signal.Signals(-code).name}{printed and ': '}{printed}")
        return Died(f"it ended with exit code {code}{printed and ': '}{printed}")

    def _error_line(self) -> str:
        """Returns the fatal line that the process printed, or else its last line outside logs; "" if there is none."""
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(size - _TAIL, 0))
        text = self._printed.read().decode("utf-8", "replace")
        if fatal := _FATAL.search(text):
            return shown(fatal[1])
        lines = [line for line in text.splitlines() if line.strip() and not _LOGGED.match(line)]
        return shown(lines[-1].strip()) if lines else ""


def resident(process: int) -> int:
    """Returns the resident bytes of a process and its descendants; 0 on systems without /proc."""
    total, waiting = 0, [process]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        with suppress(OSError, ValueError, IndexError):  # it has ended
            total += int((folder / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for children in (folder / "task").glob("*/children"):
                waiting += map(int, children.read_text(encoding="ascii").split())
    return total
