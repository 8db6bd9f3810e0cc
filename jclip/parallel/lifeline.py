"""Sockets by which the processes of a run detect immediately that one of them died.

While the others wait on the devices, jax detects it too. During start-up, saves and evaluation on the host, jax notices
only when its heartbeat times out. If no socket can be opened, the run relies on that heartbeat.

Process 0 listens on the coordinator's host, at a port that the system chooses; only on the loopback interface if that
host is localhost. A connection must begin with the run's secret, or it is closed.
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

from jclip.internals import coordination_client, coordinator_host, process_index

LOST = 134
"""Exit code after another process was lost; equal to that of jax's own abort (SIGABRT)."""

_KEY = "jclip/lifeline"  # key of the port and the secret in jax's coordination service
_BYE = b"."
_PATIENCE = 10  # seconds for a connection
_SECRET, _NUMBER = 16, 4  # bytes
# Seconds; firewalls drop connections that are silent for hours.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 60}


class Lifeline:
    """Connections between process 0 and every other process.

    Calls `lost` in a thread, with the name of a process whose connection ended without a farewell. A connection that
    the network dropped is ignored: jax's heartbeat decides.
    """

    def __init__(self, lost: Callable[[str], None]):
        self._lost, self._sockets = lost, list[socket.socket]()
        self._listening: socket.socket | None = None
        self._secret = b""
        self._over = threading.Event()
        self._lock = threading.Lock()

    def listen(self, host: str) -> str:
        """Accepts connections in the background. Returns port and secret for `connect`; "" if no socket opens."""
        try:
            listening = self._listening = _listen(host)
        except OSError:
            return ""
        self._secret = secrets.token_bytes(_SECRET)
        self._sockets.append(listening)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return f"{listening.getsockname()[1]} {self._secret.hex()}"

    def connect(self, host: str, port_and_secret: str, number: int) -> bool:
        """Connects process `number` to process 0 on `host`; returns True on success.

        `port_and_secret` is what process 0's `listen` returned.
        """
        port, _, secret = port_and_secret.partition(" ")
        if not port:
            return False
        try:
            line = socket.create_connection((host, int(port)), timeout=_PATIENCE)
            line.sendall(bytes.fromhex(secret) + number.to_bytes(_NUMBER, "big"))  # fits into the socket's buffer
        except OSError:
            return False
        self._keep(line, "process 0 of this run")
        return True

    def close(self) -> None:
        """Sends a farewell, so that the other side does not count this process as lost."""
        self._over.set()
        with self._lock:
            for line in self._sockets:
                with suppress(OSError):
                    if line is not self._listening:
                        line.sendall(_BYE)
                    line.shutdown(socket.SHUT_RDWR)  # wakes the waiting thread, which closes it

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                listening.close()
                return
            line.settimeout(_PATIENCE)
            received = b""
            with suppress(OSError):
                while len(received) < _SECRET + _NUMBER and (more := line.recv(_SECRET + _NUMBER - len(received))):
                    received += more
            if hmac.compare_digest(received[:_SECRET], self._secret):
                self._keep(line, f"process {int.from_bytes(received[_SECRET:], 'big')} of this run")
            else:
                line.close()  # not a process of this run

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
        received = _BYE  # after an OSError jax's heartbeat decides
        with line, suppress(OSError):
            received = line.recv(1)
        if not received and not self._over.is_set():
            self._lost(who)


def hold(seconds: float) -> None:
    """Opens the lifeline between this process and process 0; waits at most `seconds` for process 0 to listen.

    It closes when this process exits. If the other end is lost first, this process exits with code LOST.
    """
    line, client = Lifeline(_end), coordination_client()
    if process_index() == 0:
        client.key_value_set(_KEY, line.listen(coordinator_host()))
    else:
        line.connect(coordinator_host(), client.blocking_key_value_get(_KEY, int(1000 * seconds)), process_index())
    atexit.register(line.close)


def _listen(host: str) -> socket.socket:
    """Returns a listening socket: on the loopback interface if the host is localhost, else on all interfaces."""
    if _is_loopback(host):
        for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with suppress(OSError):
                return socket.create_server((str(address[0]), 0), family=family, backlog=1024)
        raise OSError(f"{host} has no address to listen on")
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _end(who: str) -> None:
    os.write(2, f"jclip: {who} was lost: start all processes again\n".encode())
    os._exit(LOST)
