"""Sockets by which the processes of a run notice at once that one of them is gone.

Where processes wait on the devices they notice anyway; not so in start-up, in saves and in evaluations on the host,
where jax waits for a heartbeat that does not come. Where no connection can be made, the heartbeat remains.
"""

import atexit
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

LOST = 134
"""Exit code of a process that has lost another: what jax ends with, by SIGABRT, when it notices first."""

_BYE = b"."
_PATIENCE = 10  # seconds for a connection


class Lifeline:
    """Connections between the first process and every other one.

    Args:
      lost: called with words when a connection breaks before a farewell; in a thread.
    """

    def __init__(self, lost: Callable[[str], None]):
        self._lost, self._sockets = lost, list[socket.socket]()
        self._listening: socket.socket | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def listen(self) -> int:
        """Accepts the others' connections in the background, and returns the port."""
        listening = self._listening = socket.create_server(("", 0), backlog=1024)
        self._sockets.append(listening)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return int(listening.getsockname()[1])

    def connect(self, host: str, port: int, number: int) -> bool:
        """Connects process `number` to the first; False where that cannot be."""
        try:
            line = socket.create_connection((host, port), timeout=_PATIENCE)
            line.sendall(number.to_bytes(4, "big"))  # which an empty buffer takes at once
        except OSError:
            return False
        self._keep(line, "the first process of this run")
        return True

    def close(self) -> None:
        """Bids farewell: an orderly end is no loss."""
        self._over.set()
        with self._lock:
            for line in self._sockets:
                with suppress(OSError):
                    if line is not self._listening:
                        line.sendall(_BYE)
                    line.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits, and that one closes it

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                listening.close()
                return
            line.settimeout(_PATIENCE)
            try:
                number = int.from_bytes(line.recv(4, socket.MSG_WAITALL), "big")
            except OSError:
                line.close()  # somebody else's
                continue
            self._keep(line, f"process {number} of this run")

    def _keep(self, line: socket.socket, who: str) -> None:
        line.settimeout(None)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with self._lock:
            self._sockets.append(line)
        threading.Thread(target=self._watch, args=(line, who), daemon=True).start()

    def _watch(self, line: socket.socket, who: str) -> None:
        said = b""
        with line, suppress(OSError):
            said = line.recv(1)
        if not said and not self._over.is_set():
            self._lost(who)


def hold(number: int, host: str, tell: Callable[[str], None], hear: Callable[[], str]) -> None:
    """Connects this process with the first for as long as it lives.

    Args:
      number: of this process.
      host: of the first process.
      tell: tells all processes the port, on the first.
      hear: returns what was told, on the others.
    """
    line = Lifeline(_end)
    if number == 0:
        tell(str(line.listen()))
    else:
        line.connect(host, int(hear()), number)
    atexit.register(line.close)


def _end(who: str) -> None:
    os.write(2, f"jclip: {who} was lost: start all of them again\n".encode())
    os._exit(LOST)
