"""Sockets by which the processes of a run notice at once that one of them is gone.

Where processes wait on the devices they notice anyway; not so in start-up, in saves and in evaluations on the host,
where jax waits for a heartbeat that does not come. Where no connection can be made, the heartbeat remains.

The first process listens where jax's coordinator does, at a port that the system chooses, and on this machine alone
where that is localhost. A stranger who connects does not know the run's secret, and is turned away.
"""

import atexit
import hmac
import ipaddress
import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

LOST = 134
"""Exit code of a process that has lost another: what jax ends with, by SIGABRT, when it notices first."""

_BYE = b"."
_PATIENCE = 10  # seconds for a connection
_SECRET, _NUMBER = 16, 4  # bytes
# Seconds, so that a firewall does not forget a connection that is silent for hours.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 60}


class Lifeline:
    """Connections between the first process and every other one.

    Args:
      lost: called with words when a connection ends before a farewell; in a thread. One that only fails, for the
        network forgot it, is left to jax's heartbeat.
    """

    def __init__(self, lost: Callable[[str], None]):
        self._lost, self._sockets = lost, list[socket.socket]()
        self._listening: socket.socket | None = None
        self._secret = b""
        self._over = threading.Event()
        self._lock = threading.Lock()

    def listen(self, host: str) -> str:
        """Accepts the others' connections in the background.

        Args:
          host: of this process, as the others know it.

        Returns:
          What they need for it; empty where no socket can be had.
        """
        try:
            listening = self._listening = _listen(host)
        except OSError:
            return ""
        self._secret = secrets.token_bytes(_SECRET)
        self._sockets.append(listening)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return f"{listening.getsockname()[1]} {self._secret.hex()}"

    def connect(self, host: str, told: str, number: int) -> bool:
        """Connects process `number` to the first; False where that cannot be.

        Args:
          host: of the first process.
          told: what its `listen` returned.
          number: of this one.
        """
        port, _, secret = told.partition(" ")
        if not port:
            return False
        try:
            line = socket.create_connection((host, int(port)), timeout=_PATIENCE)
            line.sendall(bytes.fromhex(secret) + number.to_bytes(_NUMBER, "big"))  # an empty buffer takes it at once
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
            said = b""
            with suppress(OSError):
                while len(said) < _SECRET + _NUMBER and (more := line.recv(_SECRET + _NUMBER - len(said))):
                    said += more
            if hmac.compare_digest(said[:_SECRET], self._secret):
                self._keep(line, f"process {int.from_bytes(said[_SECRET:], 'big')} of this run")
            else:
                line.close()  # somebody else's

    def _keep(self, line: socket.socket, who: str) -> None:
        line.settimeout(None)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
        with self._lock:
            self._sockets.append(line)
        threading.Thread(target=self._watch, args=(line, who), daemon=True).start()

    def _watch(self, line: socket.socket, who: str) -> None:
        said = _BYE
        with line, suppress(OSError):
            said = line.recv(1)
        if not said and not self._over.is_set():
            self._lost(who)


def hold(number: int, host: str, tell: Callable[[str], None], hear: Callable[[], str]) -> None:
    """Connects this process with the first for as long as it lives.

    Args:
      number: of this process.
      host: of the first process.
      tell: tells all processes what the first listens to, on the first.
      hear: returns what was told, on the others.
    """
    line = Lifeline(_end)
    if number == 0:
        tell(line.listen(host))
    else:
        line.connect(host, hear(), number)
    atexit.register(line.close)


def _listen(host: str) -> socket.socket:
    """Returns a socket that listens for this machine alone if the host is localhost, else as jax's coordinator does."""
    if _is_here(host):
        for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with suppress(OSError):
                return socket.create_server((str(address[0]), 0), family=family, backlog=1024)
        raise OSError(f"{host} has no address to listen at")
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _end(who: str) -> None:
    os.write(2, f"jclip: {who} was lost: start all of them again\n".encode())
    os._exit(LOST)
