"""Runs of several real processes, each with several devices: the same numbers as with one.

What happens to one of the processes alone: tests/parallel/test_processes.py.
"""

import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jclip.images.on_host import HostAugmentation
from jclip.stages import Budget
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from tests.train.cluster import Job, _evaluator, finish, run_all, start_all
from tests.train.runs import leaves, losses


def smooth(run):
    """Returns both stages in float32, with batches that 8 devices divide, evaluated after every step."""
    stages = tuple(
        replace(
            stage,
            objective=replace(stage.objective, host_augmentation=HostAugmentation()),
            batch_size=16,
            budget=Budget(steps=2),
            # Adam divides by a gradient's size: where that is about zero, epsilon keeps rounding errors small.
            optimizer=replace(stage.optimizer, learning_rate=1e-2, warmup_steps=0, schedule="constant", eps=1e-3),
        )
        for stage in run.stages
    )
    return replace(run, dtype="float32", stages=stages, evaluate_every=1)


def evaluations(workdir):
    """Returns {total steps: figures} of every evaluation."""
    lines = (line for line in read_journal(workdir / "metrics.jsonl") if line["kind"] == "evaluation")
    return {line["total"]: {name: value for name, value in line.items() if "toy/" in name} for line in lines}


@pytest.mark.parametrize(
    ("name", "four"), [("toy_run", False), pytest.param("chinese_clip", True, marks=pytest.mark.slow)]
)
def test_processes_do_what_one_does(request, tmp_path, name, four):
    """Several processes read the frozen image tower's features from a cache that they make; one process runs it.

    Their devices seem to have a memory of their own, so that frozen parameters are in the host's between the steps.
    Two processes train the toy's first stage; or two begin with the reduced towers, and four go on in the second.
    """
    run = smooth(request.getfixturevalue(name))
    gallery = 11  # not a multiple of any number of devices here
    rest, steps = (run.stages[1:], [1, 2, 3, 4]) if four else ((), [1, 2])
    run = replace(run, stages=(run.stages[0], *rest))
    cached = replace(run, stages=(replace(run.stages[0], cache=str(tmp_path / "cache")), *run.stages[1:]))
    whole = train(run, tmp_path / "one", evaluators={"toy": _evaluator(run, Job(run, tmp_path, gallery=gallery))})
    assert whole.finished
    stop = 3 if four else None
    two = run_all(
        Job(cached, tmp_path / "many", stop_after=stop, gallery=gallery, own_memory=True), processes=2, devices=4
    )
    assert [code for code, _ in two] == [0, 0], two
    assert all(("outcome: False 3" if four else "outcome: True 2") in said for _, said in two)
    if four:
        ended = run_all(Job(cached, tmp_path / "many", gallery=gallery), processes=4, devices=2)
        assert [code for code, _ in ended] == [0] * 4, ended
        assert all("outcome: True 4" in said for _, said in ended)

    (made,) = (line for line in read_journal(tmp_path / "many" / "metrics.jsonl") if line["kind"] == "cache")
    assert made["computed"] == made["rows"] == 256
    one, many = losses(tmp_path / "one"), losses(tmp_path / "many")
    assert [step for step, _ in one] == [step for step, _ in many] == steps
    np.testing.assert_allclose([loss for _, loss in many], [loss for _, loss in one], rtol=2e-5)
    ours, theirs = evaluations(tmp_path / "many"), evaluations(tmp_path / "one")
    assert ours.keys() == theirs.keys() == {0, *steps}
    for total, figures in theirs.items():
        assert ours[total] == pytest.approx(figures, rel=1e-4)
    for bundle in whole.bundles:
        found = leaves(tmp_path / "many" / bundle.name)
        for path, leaf in leaves(bundle).items():
            np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=5e-5, err_msg=path)


@pytest.mark.slow
def test_a_process_that_is_killed_is_noticed(tmp_path):
    options = ["--stages.0.budget.steps", "5000", "--log-every", "1", "--checkpoint-every", "5"]
    config = "configs/demo/chinese_clip.py"
    command = [sys.executable, "-m", "jclip.cli", "train", config, "--reduced", "--workdir", str(tmp_path), *options]
    running = start_all([command] * 2, devices=1)
    while not (tmp_path / "checkpoints" / "5").exists() and running[1].poll() is None:
        time.sleep(0.1)
    running[1].kill()
    (zero, said), (one, _) = finish(running)
    assert (zero, one) == (134, -9), said


def test_a_command_that_one_process_cannot_read_ends_all(tmp_path):
    config = "configs/demo/chinese_clip.py"
    jclip = [sys.executable, "-m", "jclip.cli", "train", "--reduced", "--workdir", str(tmp_path / "run")]
    ended = finish(start_all([[*jclip, config], [*jclip, "configs/demo/chinese.py"]], devices=1))
    assert [code for code, _ in ended] == [1, 1], ended
    assert all("there is no configuration file configs/demo/chinese.py" in said for _, said in ended)
    assert not (tmp_path / "run").exists()
