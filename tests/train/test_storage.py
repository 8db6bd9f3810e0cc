"""Checkpoints in folders of any name, and on storage that fails: the process ends soon with the right exit code."""

import os
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError
from jclip.orbax_manager import literal_path
from tests.train.cluster import ROOT, finish, start_all

NAMES = (
    "run[1]", "[!x]", "a*b", "q?x", "{a,b}", "sp ace ", "100%25", "new\nline", "运行", "back\\slash", "gs:", "a:b",
    "-x", os.fsdecode(b"bad\xff"),
)  # fmt: skip
SOON = 120  # seconds in which a process must end, on a busy machine

# Saves twice in each of several folders, breaks the storage in between, and prints the errors.
PROGRAM = """
import resource, shutil, signal, sys
from pathlib import Path
import numpy as np, jax
from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError
from jclip.parallel.processes import connect, is_first_process, sharing_errors

def a_file(folder):
    shutil.rmtree(folder)
    folder.touch()

def nothing_left(folder):
    shutil.rmtree(folder)

def no_bytes(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

connect()
mesh = jax.make_mesh((jax.device_count(),), ("d",))
values = np.random.default_rng(0).normal(size=(8, 5000)).astype(np.float32)
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
state = {"a": jax.make_array_from_callback(values.shape, sharding, lambda i: values[i])}
code = 0
for name in sys.argv[2:]:
    folder = Path(sys.argv[1]) / name
    try:
        with sharing_errors():
            checkpoints = Checkpoints(folder)
            try:
                checkpoints.save(Position(0, 1, 1), state, {})
                checkpoints.wait()
                if is_first_process():
                    globals()[name](folder)
                checkpoints.save(Position(0, 2, 2), state, {})
                checkpoints.wait()
            finally:
                checkpoints.close()
    except JclipError as error:
        print(f"JclipError: {error}", file=sys.stderr)
        code = 1
sys.exit(code)
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_run_under_any_name_is_saved_and_read(name, tmp_path):
    (tmp_path / "axb" / "checkpoints").mkdir(parents=True)  # which a*b and a?b match
    folder, state = tmp_path / name / "checkpoints", {"a": jnp.arange(4.0)}
    checkpoints = Checkpoints(folder)
    for number in (1, 2, 3):
        checkpoints.save(Position(0, number, number), state, {"fact": name})
    checkpoints.close()
    assert sorted(os.listdir(folder)) == ["2", "3"]
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore(lambda position, record: state)
    checkpoints.close()
    assert found and found.position.total == 3 and found.record["fact"] == name
    np.testing.assert_array_equal(found.state["a"], state["a"])
    assert not os.listdir(tmp_path / "axb" / "checkpoints")


def test_a_literal_path_leads_to_the_folder_and_goes(tmp_path):
    (tmp_path / "a[1]").mkdir()
    with literal_path(tmp_path / "a[1]") as path:
        (path / "here").touch()
        assert (tmp_path / "a[1]" / "here").exists() and "[" not in str(path)
    assert not path.parent.exists() and (tmp_path / "a[1]" / "here").exists()
    with literal_path(tmp_path / "plain") as path:
        assert path == tmp_path / "plain"


def test_a_name_that_needs_a_link_where_none_can_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(JclipError, match=r"a\[1\] has a name that needs a symbolic link.*set TMPDIR$"):
        Checkpoints(tmp_path / "a[1]")


def test_a_process_that_cannot_save_ends_soon(tmp_path):
    told = {
        "a_file": r"\(Not a directory; no earlier one exists\)",
        "nothing_left": r"\(No such file or directory; no earlier one exists\)",
        "no_bytes": r"\(.*; the checkpoint 1 is safe\)",
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *told]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SOON)
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if line]
    for line, (name, words) in zip(lines, told.items(), strict=True):
        expected = rf"JclipError: {tmp_path}/{name}: a checkpoint cannot be written {words}: fix that and run again"
        assert re.fullmatch(expected, line), line


@pytest.mark.slow  # where process 1 cannot save: tests/parallel/test_processes.py
def test_all_processes_end_soon_where_the_first_cannot_save(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "a_file"]
    ended = finish(start_all([command] * 2, devices=1))
    assert [code for code, _ in ended] == [1, 1], ended
    assert all("a checkpoint cannot be written (" in said for _, said in ended), ended
