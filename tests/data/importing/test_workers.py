"""Workers do not outlive the process that started them."""

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

IMPORT = """
import sys
from pathlib import Path
from jclip.data.importing.workers import in_processes
from tests.data.importing.test_workers import hold

in_processes(2)(hold, [Path(name) for name in sys.argv[1:]], print)
"""


def hold(file):
    """Holds a lock for as long as the process lives."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        file.with_suffix(".held").touch()
        time.sleep(600)


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        if time.monotonic() > until:
            pytest.fail("it did not come true")
        time.sleep(0.05)


def is_free(file):
    with file.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_workers_end_with_an_import_that_is_killed(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", IMPORT, *files], cwd=root) as importing:
        wait_until(lambda: all(file.with_suffix(".held").exists() for file in files))
        assert not any(map(is_free, files))
        importing.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(is_free, files)))


def test_workers_start_without_jax():
    """Importing jax would take longer than everything else together."""
    code = "import sys, jclip.data.importing.engine, jclip.data.batches.opened; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
