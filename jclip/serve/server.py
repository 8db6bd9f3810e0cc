"""Runs the application: the socket, and the signals that end it."""

import errno
import ipaddress
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette

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


class Server(uvicorn.Server):
    """Server that a first SIGTERM or SIGINT ends after the requests in progress, and a second one at once."""

    def __init__(self, app: Starlette):
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )

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
