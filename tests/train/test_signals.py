"""Runs whose terminal is closed: a lost ssh connection costs no step."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from jclip.train.logging.sinks import read_journal
from jclip.train.workplace import stop_signals
from tests.train.cluster import ROOT

PATIENCE = 120  # seconds; normally it takes 20, but a machine may be busy
COMMAND = [sys.executable, "-m", "jclip.cli", "train", "tests/train/toy.py", "--reduced"]
LONG = ["--stages.0.budget.steps", "100000", "--checkpoint-every", "0"]


@pytest.fixture(autouse=True)
def default_hang_up():
    """Hang-ups are not ignored, as they are if `nohup` runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_run_saves_when_its_terminal_goes(tmp_path):
    """The run is the leader of a session in a pseudo-terminal that is closed in the middle of the run."""
    terminal, inner = pty.openpty()
    # The first terminal that the leader of a session opens becomes the session's own.
    opening = ["bash", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(inner)]
    run = [*COMMAND, "--workdir", str(tmp_path / "run"), *LONG]
    process = subprocess.Popen([*opening, *run], cwd=ROOT, start_new_session=True)
    try:
        until = time.monotonic() + PATIENCE
        while len(read_journal(tmp_path / "run" / "metrics.jsonl")) < 5:
            assert time.monotonic() < until
            if select.select([terminal], [], [], 0.1)[0]:  # otherwise it would wait for a reader
                os.read(terminal, 65536)
        os.close(terminal)
        assert process.wait(until - time.monotonic()) == 75
    finally:
        process.kill()
        process.wait()
        os.close(inner)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    steps = [line["total"] for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert int(saved.name) == steps[-1] >= 3


def test_a_closed_standard_error_does_not_stop_the_run(tmp_path):
    """Standard error is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*COMMAND, "--workdir", str(tmp_path / "run")], cwd=ROOT, stderr=writer, timeout=PATIENCE)
    os.close(writer)
    assert ended.returncode == 0
    assert (tmp_path / "run" / "2-everything").is_dir()


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_noted(kind):
    before = signal.getsignal(kind)
    with stop_signals() as received:
        os.kill(os.getpid(), kind)
        assert received == [kind]
    assert signal.getsignal(kind) == before
