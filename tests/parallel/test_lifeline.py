"""The lifeline: a process that dies is noticed at once, whatever the others wait for."""

import socket
import struct
import sys
import time

import pytest

from jclip.parallel.lifeline import Lifeline
from tests.train.cluster import finish, start_all

# The others wait in a barrier for a process that is gone.
PROGRAM = """
import os, sys, time
from jclip.parallel.processes import barrier, connect, process_index
connect()
barrier()
if process_index() == int(sys.argv[1]):
    time.sleep(1)
    os.kill(os.getpid(), 9)
barrier()
"""


@pytest.mark.parametrize(("gone", "processes"), [(0, 2), (1, 3)])
def test_a_killed_process_is_noticed_within_seconds(gone, processes):
    running = start_all([[sys.executable, "-c", PROGRAM, str(gone)]] * processes, devices=1)
    running[gone].wait(120)
    begun = time.monotonic()
    ended = finish(running)
    assert time.monotonic() - begun < 20  # the heartbeat takes 60
    assert ended[gone][0] == -9
    assert all(code in (134, -6) for number, (code, _) in enumerate(ended) if number != gone), ended


def until_true(condition):
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_process_that_closes_its_connection_is_not_lost():
    lost = []
    first, other, third = (Lifeline(lost.append) for _ in range(3))
    told = first.listen("localhost")
    assert other.connect("localhost", told, 1) and third.connect("localhost", told, 2)
    until_true(lambda: len(first._sockets) == 3)  # including the listening socket
    other.close()
    time.sleep(0.1)
    assert lost == []
    third._sockets[0].shutdown(2)  # as the system does when a process dies
    until_true(lambda: "process 2 of this run" in lost)
    first.close()
    third.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.0\r\n\r\n", bytes(20)])
def test_connections_of_strangers_are_ignored(said):
    lost = []
    first, other = Lifeline(lost.append), Lifeline(lost.append)
    told = first.listen("localhost")
    with socket.create_connection(("localhost", int(told.split()[0])), timeout=10) as stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(1) == b""  # turned away
    assert other.connect("localhost", told, 1)
    until_true(lambda: len(first._sockets) == 2)
    assert lost == []
    other.close()
    first.close()


@pytest.mark.parametrize(("host", "here"), [("localhost", True), ("127.0.0.1", True), ("10.1.2.3", False)])
def test_it_listens_to_other_machines_only_if_there_are_any(host, here):
    first = Lifeline(lambda who: None)
    first.listen(host)
    address = first._listening.getsockname()[0]
    assert (address in ("127.0.0.1", "::1")) == here
    assert here or address in ("::", "0.0.0.0")  # as jax's coordinator
    first.close()


def test_it_does_without_sockets(monkeypatch):
    line = Lifeline(lambda who: None)
    assert not line.connect("localhost", f"1 {'00' * 16}", 3)  # nothing listens on this port

    def none(*arguments, **more):
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr("socket.socket", none)
    assert line.listen("localhost") == line.listen("10.1.2.3") == ""
    assert not line.connect("localhost", "", 3)


def test_a_reset_connection_is_left_to_the_heartbeat():
    lost = []
    first = Lifeline(lost.append)
    port, secret = first.listen("localhost").split()
    for count, resets, number in ((2, True, 7), (3, False, 8)):
        other = socket.create_connection(("localhost", int(port)), timeout=10)
        other.sendall(bytes.fromhex(secret) + number.to_bytes(4, "big"))
        until_true(lambda count=count: len(first._sockets) == count)
        if resets:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        until_true(lambda: first._sockets[-1].fileno() == -1)
    until_true(lambda: lost)  # it is told after the socket is closed
    assert lost == ["process 8 of this run"]
    first.close()
