"""Runs the application: the socket, and the signals that end it."""

import asyncio
import errno
import ipaddress
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from jclip.errors import JclipError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 120
"""Seconds after which a connection whose client does not read its answer no longer delays the end."""


def is_local(host: str) -> bool:
    """Returns True if an address can be reached from this machine only.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("::1"), is_local("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket bound to an address; port 0 chooses a free one.

    Raises JclipError if the host is unknown, or the port is taken or not allowed.
    """
    if not 0 <= port < 1 << 16:
        raise JclipError(f"--port {port} is not possible: give 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise JclipError(f"--host {host} is not an address of this machine ({reason}): give another") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise JclipError(f"port {port} is in use: give another --port, or 0 for any free one") from None
        raise JclipError(f"{host}, port {port}, cannot be used ({error.strerror}): give another") from None
    return listening


def url_of(listening: socket.socket) -> str:
    """Returns the address of a socket as a browser reads it: "http://127.0.0.1:8000"."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connection(H11Protocol):
    """Connection that is closed if the head of a request does not arrive in time. uvicorn limits only idle time."""

    seconds = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request. Parts of a head do not prolong the time for it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Server that a first SIGTERM or SIGINT ends after the requests in progress, and a second one at once.

    Args:
      app: the application.
      announce: called when requests are accepted and signals handled.
    """

    def __init__(self, app: Starlette, announce: Callable[[], None] = lambda: None):
        self._announce = announce
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept requests."""
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles the signals within the block. uvicorn's own raises them again, and the exit code would not be 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes the first signal, and ends the process at the second."""
        if self.should_exit:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(128 + sig)
        self.should_exit = True
