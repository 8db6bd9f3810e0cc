"""A process that is gone is noticed at once, whatever the others wait for."""

import sys
import time

import pytest

from jclip.parallel.lifeline import Lifeline
from tests.train.cluster import finish, start_all

# The others wait on the host for one that never comes.
PROGRAM = """
import os, sys, time
from jclip.parallel.processes import connect, index, meet
connect()
meet()
if index() == int(sys.argv[1]):
    time.sleep(1)
    os.kill(os.getpid(), 9)
meet()
"""


@pytest.mark.parametrize("gone", [0, 1])
def test_a_killed_process_is_missed_within_seconds(gone):
    running = start_all([[sys.executable, "-c", PROGRAM, str(gone)]] * 3, devices=1)
    running[gone].wait(120)
    begun = time.monotonic()
    ended = finish(running)
    assert time.monotonic() - begun < 20  # the heartbeat takes 60
    assert ended[gone][0] == -9
    assert all(code in (134, -6) for number, (code, _) in enumerate(ended) if number != gone), ended


def test_who_says_farewell_is_not_lost():
    lost = []
    first, other, third = (Lifeline(lost.append) for _ in range(3))
    port = first.listen()
    assert other.connect("localhost", port, 1) and third.connect("localhost", port, 2)
    while len(first._sockets) < 3:  # with the one that listens
        time.sleep(0.01)
    other.close()
    time.sleep(0.1)
    assert lost == []
    third._sockets[0].shutdown(2)  # as the system does when a process dies
    until = time.monotonic() + 10
    while not lost and time.monotonic() < until:
        time.sleep(0.01)
    assert "process 2 of this run" in lost
    first.close()
    third.close()
    assert not Lifeline(lost.append).connect("localhost", 1, 3)
