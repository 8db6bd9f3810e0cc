"""Errors in the middle of a run of the toy: a full disk, a bad image, a failing evaluation. No step is lost."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tensorboardX.record_writer import RecordWriter

from jclip.checkpoint import Checkpoints
from jclip.errors import JclipError
from jclip.io.files import is_full_disk
from jclip.stages import Budget
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from tests.train.runs import Watch, assert_same_bundles, bundles, holey_pairs, losses
from tests.train.toy import larger, toy


def standing(workdir):
    """Returns the position of the newest checkpoint."""
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    record = json.loads((newest / "record" / "metadata").read_text())
    return record["stage"], record["step"], record["total"]


@pytest.fixture
def disk(tmp_path):
    """Folder on a disk of its own with few bytes and files, or an ordinary folder if mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=400", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, capture_output=True).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full(disk, what, monkeypatch):
    """Fills a mounted disk except for the log; for an ordinary folder, makes orbax's calls fail as on a full disk."""
    if not disk.is_mount():
        with monkeypatch.context() as patch:
            if what == "bytes":
                patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
            else:
                patch.setattr("orbax.checkpoint._src.serialization.serialization.async_serialize_from_host", _refuse)
            yield
        return
    ballast = disk / "ballast"
    ballast.mkdir()
    if what == "bytes":
        (ballast / "bytes").write_bytes(b"x" * (shutil.disk_usage(disk).free - 2**16))
    else:  # enough bytes to pass the check of free space, so that the write itself fails
        for number in range(os.statvfs(disk).f_favail - 6):
            (ballast / str(number)).touch()
    yield
    for file in ballast.iterdir():
        file.unlink()
    ballast.rmdir()


async def _refuse(*_, **__):
    raise ValueError("RESOURCE_EXHAUSTED: Error writing \"a/0.0\": No space left on device [os_error_code='28']")


@pytest.mark.parametrize("what", ["bytes", "files"])
def test_a_full_disk_is_named_and_older_checkpoints_survive(one_stage, trained_once, disk, what, monkeypatch, capfd):
    # A state that is larger than the space left for the log.
    one_stage, workdir = larger(one_stage, 2**16), disk / "run"
    train(one_stage, workdir, stop_after=1)
    kept = {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")}
    capfd.readouterr()
    with (
        full(disk, what, monkeypatch),
        pytest.raises(JclipError, match=r"^no space for a checkpoint of .* \(the checkpoint 1 is safe\)") as told,
    ):
        train(one_stage, workdir, stop_after=3)
    assert "\n" not in str(told.value) and "Traceback" not in "".join(capfd.readouterr())
    assert {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")} == kept
    resumed = train(one_stage, workdir)
    assert resumed.finished
    assert_same_bundles(resumed.bundles, bundles(trained_once(one_stage)))


def test_a_full_disk_stops_what_the_run_reports_too(one_stage, tmp_path, monkeypatch):
    """A log that cannot be written does not hang the run either."""
    run, workdir = replace(one_stage, log_every=1), tmp_path / "run"
    train(run, workdir, stop_after=1)
    opening = RecordWriter.__init__
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "__init__", lambda self, path: opening(self, "/dev/full"))
        with pytest.raises(JclipError, match=r"^no space for the metrics in \S+/run: free some and run again$"):
            train(run, workdir)
    assert train(run, workdir).finished


def test_what_a_full_disk_looks_like():
    chained = RuntimeError("save failed")
    chained.__cause__ = OSError(28, "whatever the words")
    assert is_full_disk(chained)
    assert is_full_disk(ValueError("RESOURCE_EXHAUSTED: Error writing file"))
    assert not is_full_disk(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes"))
    assert not is_full_disk(OSError(13, "Permission denied"))


def test_half_a_checkpoint_of_a_killed_process_goes(tmp_path):
    half = tmp_path / "7.orbax-checkpoint-tmp"
    half.mkdir()
    Checkpoints(tmp_path).close()
    assert not half.exists()


def test_a_bundle_that_cannot_be_written_costs_no_step(toy_run, trained_once, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    in_the_way = workdir / f"1-{toy_run.stages[0].name}"
    in_the_way.touch()
    with pytest.raises(JclipError, match="exists already"):
        train(toy_run, workdir)
    assert standing(workdir) == (0, 2, 2)
    in_the_way.unlink()
    watch = Watch()
    resumed = train(toy_run, workdir, watcher=watch)
    assert watch.steps == [1, 2]  # the second stage's alone
    whole = trained_once(toy_run)
    assert_same_bundles(resumed.bundles, bundles(whole))
    assert losses(workdir) == losses(whole)


@pytest.mark.parametrize("at", [2, 4])
def test_an_evaluation_that_fails_costs_no_step(one_stage, trained_once, tmp_path, at):
    run, calls = replace(one_stage, evaluate_every=2), []

    def evaluator(variables):
        calls.append(1)
        if len(calls) == 1 + at // 2:  # the first call is before the first step
            raise JclipError("the gallery burned down")
        return {"calls": float(len(calls))}

    workdir = tmp_path / "run"
    with pytest.raises(JclipError, match="^the gallery burned down$"):
        train(run, workdir, evaluators={"toy": evaluator})
    assert standing(workdir) == (0, at, at)
    resumed = train(run, workdir, evaluators={"toy": evaluator})
    assert_same_bundles(resumed.bundles, bundles(trained_once(one_stage)))
    found = [line["total"] for line in read_journal(workdir / "metrics.jsonl") if line["kind"] == "evaluation"]
    assert found == ([0, 4] if at == 2 else [0, 2, 4])


def test_parameters_that_are_not_finite_are_never_saved(one_stage, tmp_path):
    stage = replace(one_stage.stages[0], optimizer=replace(one_stage.stages[0].optimizer, learning_rate=float("3e38")))
    wild = replace(one_stage, stages=(replace(stage, budget=Budget(steps=8)),), log_every=0, checkpoint_every=1)
    with pytest.raises(JclipError, match=r"^\S+ is not finite after \d steps, and nothing is saved\. "):
        train(wild, tmp_path / "run")


@pytest.fixture
def pairs(tmp_path):
    """Source of 48 pairs: three steps of 16 are an epoch."""
    return holey_pairs(tmp_path / "pairs")


def test_unreadable_pictures(one_stage, pairs, tmp_path):
    strict, workdir = replace(toy(one_stage, steps=5, batch_size=16, data=(pairs,)), seed=5), tmp_path / "run"
    message = (
        rf"^{pairs.folder}: the image of record (\d+) \(index \1 of examples-train.array_record-00000-of-00001\) "
        r"cannot be read as an image \(.*\): repair or remove it, or "
        r"raise stages\.0\.max_unreadable \(now 0\), the number of replaced ones$"
    )
    # The run fails after saving all steps before, however often it is started.
    with pytest.raises(JclipError, match=message):
        train(strict, workdir)
    before = standing(workdir)
    assert before == (0, 1, 1)
    with pytest.raises(JclipError, match=message):
        train(strict, workdir)
    assert standing(workdir) == before
    # One of the two may be replaced, but not the other.
    with pytest.raises(JclipError, match=r"max_unreadable \(now 1\)"):
        train(_lenient(strict, 1), workdir)
    # When it is started again, earlier replacements count and are not noted again.
    before = standing(workdir)
    with pytest.raises(JclipError, match=r"max_unreadable \(now 1\)"):
        train(_lenient(strict, 1), workdir)
    assert standing(workdir) == before > (0, 1, 1)
    # Both are replaced and noted once each, wherever the run was stopped.
    resumed = train(_lenient(strict, 2), workdir)
    whole = train(_lenient(strict, 2), tmp_path / "whole")
    assert resumed.finished
    assert_same_bundles(resumed.bundles, whole.bundles)
    noted = [
        [line for line in read_journal(place / "metrics.jsonl") if line["kind"] == "unreadable"]
        for place in (workdir, tmp_path / "whole")
    ]
    resumed_pictures, pictures = ([picture for line in lines for picture in line["pictures"]] for lines in noted)
    assert resumed_pictures == pictures
    assert sorted(picture.split(" (index")[0] for picture in pictures) == [
        f"{pairs.folder}: the image of record {number}" for number in (29, 31)
    ]


def _lenient(run, limit):
    return replace(run, stages=tuple(replace(stage, max_unreadable=limit) for stage in run.stages))
