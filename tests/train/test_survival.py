"""Runs of the toy that are killed at any moment or have damaged checkpoints, and the best model, which is kept."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from tests.train.runs import assert_same_bundles, leaves, losses
from tests.train.toy import toy

ROOT = Path(__file__).parents[2]

# Trains the toy run that is pickled in FILE, and prints when the first step is done.
PROGRAM = """
import pickle, sys
from pathlib import Path
from jclip.train.loop import train
from tests.train.runs import Watch

first = []
def act(step):
    if not first:
        first.append(step)
        print("stepping", flush=True)

train(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), watcher=Watch(act))
"""


@pytest.fixture
def saving(toy_run):
    """Two stages with a checkpoint every other step."""
    return replace(toy(toy_run, steps=30), checkpoint_every=2)


def killed(run, workdir, moment):
    """Starts the run and kills it `moment` seconds after its first step, or in the middle of a save."""
    file = workdir.with_suffix(".pickle")
    file.write_bytes(pickle.dumps(run))
    command = [sys.executable, "-c", PROGRAM, str(file), str(workdir)]
    with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        if not running.stdout.readline():  # it was finished before its first step
            return running.wait()
        if moment == "save":
            deadline = time.monotonic() + 60
            while not list((workdir / "checkpoints").glob("*tmp*")) and running.poll() is None:
                assert time.monotonic() < deadline
        else:
            time.sleep(moment)
        running.kill()
        return running.wait()


def kill_until_finished(run, workdir, kills, seed):
    """Kills a run repeatedly at random moments, then lets it finish; returns the number of kills."""
    draw, count = random.Random(seed), 0
    for number in range(kills):
        moment = "save" if number % 3 == 0 else draw.uniform(0, 1.5)
        count += killed(run, workdir, moment) == -signal.SIGKILL
    return count


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_run_ends_the_same_to_the_bit(saving, tmp_path, kills):
    """The first kill is in the middle of a save; test_resume.py has one between two."""
    run = toy(saving, steps=400 if kills > 1 else 30)
    count = kill_until_finished(run, tmp_path / "run", kills, seed=kills)
    assert count >= kills / 2  # a run may be finished before its last kill
    resumed, whole = train(run, tmp_path / "run"), train(replace(run, checkpoint_every=0), tmp_path / "whole")
    assert resumed.finished
    assert_same_bundles(resumed.bundles, whole.bundles)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def largest(checkpoint):
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(saving, tmp_path):
    run = toy(replace(saving, stages=saving.stages[:1]), steps=6)
    train(run, tmp_path / "run", stop_after=4)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["2", "4"]
    truncate(largest(checkpoints / "4"))  # other damage: tests/test_checkpoint.py
    resumed, whole = train(run, tmp_path / "run"), train(run, tmp_path / "whole")
    assert_same_bundles(resumed.bundles, whole.bundles)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    (warning,) = (line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "warning")
    assert warning["total"] == 2 and "checkpoints/4 is damaged" in warning["message"]
    assert (tmp_path / "run" / "damaged" / "4").is_dir()


def test_nothing_but_damaged_checkpoints_is_an_error(saving, tmp_path):
    train(saving, tmp_path / "run", stop_after=1)
    largest(tmp_path / "run" / "checkpoints" / "1").unlink()
    with pytest.raises(JclipError, match=r"checkpoints/1 cannot be read \(.*\), and it is the only checkpoint"):
        train(saving, tmp_path / "run")


def test_the_best_model_is_kept_and_written(saving, tmp_path):
    run = replace(saving, evaluate_every=2, keep_checkpoints=1, best="toy/figure")
    run = toy(replace(run, stages=run.stages[:1]), steps=10)
    figures, seen = iter([0.1, 0.2, 0.9, 0.3, 0.4, 0.5]), {}

    def evaluator(variables):
        seen[figure := next(figures)] = np.asarray(variables["params"]["text"]["projection"]["kernel"])
        return {"figure": figure}

    train(run, tmp_path / "run", evaluators={"toy": evaluator}, stop_after=8)
    assert sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == [4, 8]
    train(run, tmp_path / "run", evaluators={"toy": evaluator})
    np.testing.assert_array_equal(leaves(tmp_path / "run" / "best")["text/projection/kernel"], seen[0.9])


def test_a_best_that_no_evaluation_gives_is_named(saving, tmp_path):
    with pytest.raises(JclipError, match="best: no evaluation gives 'toy/other': choose one of toy/figure"):
        train(replace(saving, best="toy/other"), tmp_path / "run", evaluators={"toy": lambda _: {"figure": 1.0}})
