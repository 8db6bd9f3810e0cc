"""The command in a process of its own: signals, keys, sockets."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from jclip.errors import JclipError
from jclip.serve import server
from jclip.serve.server import is_local, listen, url_of
from tests.serve.services import app_of, serving

BODY = json.dumps({"inputs": ["红色的猫"] * 9}).encode()


@contextmanager
def started(place, *more, **environment):
    """Runs the command, and yields the process and its port."""
    command = [sys.executable, "-m", "jclip.cli", "serve", str(place / "bundle"), "--port", "0", "--batch", "1", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | environment, **pipes) as process:
        try:
            line = process.stdout.readline()
            port = re.match(r"http://127.0.0.1:(\d+) serves", line)
            assert port, line + process.stderr.read()
            yield process, int(port[1])
        finally:
            process.kill()


@contextmanager
def half_sent(port):
    """Yields the connection of a request whose body is half sent, and which the service has begun to read."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + BODY[:20])
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as metrics:
                if "jclip_buffer_bytes 20.0" in metrics.read().decode():
                    break
        yield connection


def refuses_connections(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # accepted by the system while the service closed its socket
        return False
    return False


def test_sigterm_finishes_what_was_accepted(place):
    with started(place) as (process, port), half_sent(port) as connection:
        process.send_signal(signal.SIGTERM)
        while not refuses_connections(port):
            pass
        connection.sendall(BODY[20:])
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 200") and len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 9
        assert (process.wait(30), process.stderr.read()) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(place, number):
    with started(place, "--index", str(place / "index")) as (process, port), half_sent(port):
        process.send_signal(number)
        while not refuses_connections(port):
            pass
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == 128 + number


@pytest.mark.slow
def test_a_signal_during_embedding(place, tmp_path):
    """The job stops, the exit code is 0, and the same command goes on."""
    more = "--index", str(tmp_path / "index"), "--embed", str(place / "images")
    with started(place, *more) as (process, port):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with started(place, *more) as (process, port):
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=30) as answer:
                progress = json.load(answer)
            if progress["state"] == "idle":
                break
        assert (progress["entries"], progress["error"]) == (12, None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_addresses():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert url_of(listening) == f"http://127.0.0.1:{port}" and port > 0
        listening.listen()
        with pytest.raises(JclipError, match=f"^port {port} is in use: give another --port, or 0"):
            listen("127.0.0.1", port)
    with listen("::1", 0) as listening:
        assert url_of(listening).startswith("http://[::1]:")
    with pytest.raises(JclipError, match="--port 70000 is not possible"):
        listen("127.0.0.1", 70_000)
    with pytest.raises(JclipError, match="--host nothing.invalid is not an address of this machine"):
        listen("nothing.invalid", 0)
    with pytest.raises(JclipError, match="cannot be used"):
        listen("192.0.2.1", 0)
    locals_ = ("127.0.0.1", "127.9.9.9", "::1", "localhost")
    assert all(map(is_local, locals_)) and not any(map(is_local, ("0.0.0.0", "::", "192.168.0.1", "example.org")))


@pytest.mark.parametrize("requests", [0, 1])
def test_a_head_that_does_not_arrive_ends_the_connection(place, monkeypatch, requests):
    """That of a first or a later request."""
    monkeypatch.setattr(server._Connection, "seconds", 0.3)
    with serving(app_of(place)) as url, socket.create_connection(("127.0.0.1", urlsplit(url).port), 10) as slow:
        for _ in range(requests):
            slow.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not slow.recv(1 << 16).endswith(b"}}"):
                pass
        begun = time.monotonic()
        slow.sendall(b"GET / HTTP/1.1\r\nHo")
        assert slow.recv(1) == b"" and 0.2 < time.monotonic() - begun < 4
