"""Decoding in worker processes: order, deaths, time limits, and their end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.images.opening import MISSING, UNDECODABLE
from jclip.images.preprocess import Preprocessing, to_array
from jclip.search.decoding import Read, Trouble, content_hash
from jclip.search.sources.items import Part
from jclip.search.workers import KILLED, SLOW, Workers
from tests.search.embedders import SIZE, encoded

HOW = Preprocessing(size=SIZE, orientation="apply")


class Harmful(bytes):
    """Content that runs a function when a worker receives it, in place of an image that ends its decoder."""

    def __new__(cls, function, argument):
        found = super().__new__(cls, b"harmful")
        found.called = function, (argument,)
        return found

    def __reduce__(self):
        return self.called


def decoded(contents, count=2, known=lambda hash: False, **more):
    with Workers(count, HOW, known, **more) as workers:
        return list(workers.decoded(contents))


@pytest.mark.parametrize("count", [0, 2])
def test_images_are_decoded_in_order(tmp_path, count):
    data = [encoded(n) for n in range(40)]
    (tmp_path / "image").write_bytes(b"x" * 7 + data[5] + b"y")
    contents = [*data, Part(os.fsencode(tmp_path / "image"), 7, len(data[5])), Part(b"/absent"), b"junk"]
    known = {content_hash(data[3])}
    found = decoded(contents, count, known.__contains__)
    assert found[-2:] == [Trouble(MISSING, "it is missing"), Trouble(UNDECODABLE, "no known image format")]
    for n, each in zip((*range(40), 5), found[:-2], strict=True):
        assert isinstance(each, Read) and (each.hash, each.width, each.height) == (content_hash(data[n]), 12, 10)
        if n == 3:
            assert each.pixels is None
        else:
            np.testing.assert_array_equal(each.pixels, to_array(HOW, data[n]))


def test_an_image_that_ends_its_worker_is_skipped():
    contents = [encoded(n) for n in range(20)]
    contents[4], contents[13] = Harmful(os._exit, 3), Harmful(os.abort, ())
    contents[13].called = os.abort, ()
    found = decoded(contents, count=1)
    assert found[4] == Trouble(KILLED, "exit code 3") and found[13] == Trouble(KILLED, "exit code -6")
    assert all(isinstance(each, Read) for n, each in enumerate(found) if n not in (4, 13))


def test_an_image_that_takes_too_long_is_skipped():
    found = decoded([encoded(1), Harmful(time.sleep, 60), encoded(2)], count=1, seconds=1.0)
    assert [type(each) for each in found] == [Read, Trouble, Read]
    assert found[1] == Trouble(SLOW, "more than 1 s")


def test_content_is_pulled_only_a_little_ahead():
    pulled = []

    def contents():
        for n in range(400):
            pulled.append(n)
            yield encoded(n % 7)

    with Workers(1, HOW, lambda hash: True, ahead=32) as workers:
        found = workers.decoded(contents())
        next(found)
        assert len(pulled) <= 32 + 8 + 8
        assert len(list(found)) == 399


def test_little_encoded_data_waits_in_memory(monkeypatch):
    monkeypatch.setattr("jclip.search.workers._HELD", 10 * len(encoded(0)))
    pulled = []

    def contents():
        for n in range(100):
            pulled.append(n)
            yield encoded(0)

    with Workers(0, HOW, lambda hash: True, ahead=80) as workers:
        found = workers.decoded(contents())
        next(found)
        assert len(pulled) <= 13
        assert len(list(found)) == 99


def test_workers_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr("sys.path", ["/nothing"])
    with pytest.raises(JclipError, match=r"a worker process cannot be started \(.*\): use --workers 0"):
        decoded([encoded(0)])


@pytest.mark.parametrize("printed", ["hello", "cnothing\\nat_all\\n.", "Vtext\\n."])
def test_what_python_prints_when_it_starts_is_no_answer(printed, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(f"print('{printed}', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(JclipError, match=r"a worker process cannot be started \(.*\): use --workers 0"):
        decoded([encoded(0)])


PROGRAM = """
import os, signal, sys, threading, time
from jclip.images.preprocess import Preprocessing
from jclip.search.workers import Workers
from tests.search.test_workers import Harmful
from tests.search.embedders import encoded

def contents():
    yield from (encoded(n) for n in range(8))
    for _ in range(16):
        yield Harmful(time.sleep, 600)

with Workers(2, Preprocessing(size=8), lambda hash: False) as workers:
    next(workers.decoded(contents()))
    time.sleep(0.5)  # the second worker sleeps now
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_their_parent():
    mark = f"JCLIP_TEST_{os.getpid()}"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, mark: "1", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
    assert (done.stdout, done.returncode) == ("ready\n", -9)
    until = time.monotonic() + 20
    while left := _processes(mark.encode()):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def _processes(mark: bytes) -> list[str]:
    """Returns the processes with a variable in their environment, without this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes() and place.name != str(os.getpid()):
                found.append(place.name)
        except OSError:  # ended meanwhile
            continue
    return found
