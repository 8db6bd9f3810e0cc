"""Checkpoints under folders of any name, and on storage that fails: the process ends soon, with its exit code."""

import os
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError
from jclip.orbax_manager import literal
from tests.train.cluster import ROOT, finish, start_all

NAMES = (
    "run[1]", "[!x]", "a*b", "q?x", "{a,b}", "sp ace ", "100%25", "new\nline", "运行", "back\\slash", "gs:", "a:b",
    "-x", os.fsdecode(b"bad\xff"),
)  # fmt: skip
SOON = 60  # seconds in which a process must end: generous, for busy machines

# Saves twice, and lets something happen to the storage in between.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, jax
from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError
from jclip.parallel.processes import connect, index, sharing_errors

connect()
folder, what, where = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
mesh = jax.make_mesh((jax.device_count(),), ("d",))
values = np.random.default_rng(0).normal(size=(8, 5000)).astype(np.float32)
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
state = {"a": jax.make_array_from_callback(values.shape, sharding, lambda i: values[i])}
try:
    with sharing_errors():
        checkpoints = Checkpoints(folder)
        try:
            checkpoints.save(Position(0, 1, 1), state, {})
            checkpoints.wait()
            if index() == where:
                exec(what)
            checkpoints.save(Position(0, 2, 2), state, {})
            checkpoints.wait()
        finally:
            checkpoints.close()
except JclipError as error:
    print(f"JclipError: {error}", file=sys.stderr)
    sys.exit(1)
"""
A_FILE = "import shutil; shutil.rmtree(folder); folder.touch()"
NOTHING_LEFT = "import shutil; shutil.rmtree(folder)"
NO_BYTES = (
    "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
)


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
    with literal(tmp_path / "a[1]") as path:
        (path / "here").touch()
        assert (tmp_path / "a[1]" / "here").exists() and "[" not in str(path)
    assert not path.parent.exists() and (tmp_path / "a[1]" / "here").exists()
    with literal(tmp_path / "plain") as path:
        assert path == tmp_path / "plain"


def test_a_name_that_needs_a_link_where_none_can_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(JclipError, match=r"a\[1\] has a name that checkpoints need a link for.*set TMPDIR$"):
        Checkpoints(tmp_path / "a[1]")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (A_FILE, r"\(Not a directory; there is none from before\)"),
        (NOTHING_LEFT, r"\(No such file or directory; there is none from before\)"),
        (NO_BYTES, r"\(.*; the checkpoint 1 is safe\)"),
    ],
)
def test_a_process_that_cannot_save_ends_soon(what, words, tmp_path):
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-c", PROGRAM, str(folder), what, "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SOON)
    assert ended.returncode == 1
    (line,) = (line for line in ended.stderr.splitlines() if line)
    expected = rf"JclipError: {folder}: a checkpoint cannot be written {words}: mend that and run again"
    assert re.fullmatch(expected, line), line


@pytest.mark.parametrize("where", [0, 1])
def test_all_processes_end_soon_where_one_cannot_save(where, tmp_path):
    what = NO_BYTES if where else A_FILE
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "checkpoints"), what, str(where)]
    ended = finish(start_all([command] * 2, devices=1))
    assert [code for code, _ in ended] == [1, 1], ended
    assert all("a checkpoint cannot be written (" in said for _, said in ended), ended
