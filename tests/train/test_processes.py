"""Runs of several real processes, each with several devices: the same numbers, one mind, no hang."""

import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jclip.images.on_host import HostAugmentation
from jclip.stages import Budget
from jclip.train.logging.telemetry import read_journal
from jclip.train.loop import train
from tests.train.cluster import Job, _evaluator, finish, run_all, start_all
from tests.train.runs import leaves, losses


@pytest.fixture
def run(chinese_clip):
    """Both stages in float32, in batches that 8 devices divide, evaluated after every step."""
    stages = tuple(
        replace(
            stage,
            batch_size=16,
            budget=Budget(steps=2),
            # Adam divides by a gradient's size: where that is about zero, epsilon keeps rounding errors small.
            optimizer=replace(stage.optimizer, learning_rate=1e-2, warmup_steps=0, schedule="constant", eps=1e-3),
        )
        for stage in chinese_clip.stages
    )
    return replace(chinese_clip, dtype="float32", stages=stages, evaluate_every=1)


def evaluations(workdir):
    """{steps in all: figures} of every evaluation."""
    lines = (line for line in read_journal(workdir / "metrics.jsonl") if line["kind"] == "evaluation")
    return {line["total"]: {name: value for name, value in line.items() if "toy/" in name} for line in lines}


def test_two_and_then_four_processes_do_what_one_does(run, tmp_path):
    """The many read the frozen image tower from a cache that they make, and the one runs it."""
    gallery = 11  # which no number of devices here divides
    objective = replace(run.stages[0].objective, host_augmentation=HostAugmentation())
    run = replace(run, stages=(replace(run.stages[0], objective=objective), *run.stages[1:]))
    cached = replace(run, stages=(replace(run.stages[0], cache=str(tmp_path / "cache")), *run.stages[1:]))
    whole = train(run, tmp_path / "one", evaluators={"toy": _evaluator(run, Job(run, tmp_path, gallery=gallery))})
    assert whole.finished
    two = run_all(Job(cached, tmp_path / "many", stop_after=3, gallery=gallery), processes=2, devices=4)
    assert [code for code, _ in two] == [0, 0], two
    assert all("outcome: False 3" in said for _, said in two)
    four = run_all(Job(cached, tmp_path / "many", gallery=gallery), processes=4, devices=2)
    assert [code for code, _ in four] == [0] * 4, four
    assert all("outcome: True 4" in said for _, said in four)

    (made,) = (line for line in read_journal(tmp_path / "many" / "metrics.jsonl") if line["kind"] == "cache")
    assert made["computed"] == made["rows"] == 256
    one, many = losses(tmp_path / "one"), losses(tmp_path / "many")
    assert [step for step, _ in one] == [step for step, _ in many] == [1, 2, 3, 4]
    np.testing.assert_allclose([loss for _, loss in many], [loss for _, loss in one], rtol=2e-5)
    ours, theirs = evaluations(tmp_path / "many"), evaluations(tmp_path / "one")
    assert ours.keys() == theirs.keys() == {0, 1, 2, 3, 4}
    for total, figures in theirs.items():
        assert ours[total] == pytest.approx(figures, rel=1e-4)
    for bundle in whole.bundles:
        for path, leaf in leaves(bundle).items():
            np.testing.assert_allclose(
                leaves(tmp_path / "many" / bundle.name)[path], leaf, rtol=1e-4, atol=5e-5, err_msg=path
            )


def test_a_signal_to_one_stops_all_at_the_same_step(run, tmp_path):
    job = Job(replace(run, evaluate_every=0), tmp_path / "run", happens={(1, 1): "SIGTERM"})
    ended = run_all(job, processes=2, devices=2)
    assert [code for code, _ in ended] == [0, 0], ended
    stops = {line for _, said in ended for line in said.splitlines() if line.startswith("outcome")}
    assert len(stops) == 1
    _, finished, total, signal = stops.pop().split()
    assert (finished, signal) == ("False", "15")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [total]


def test_another_configuration_on_one_is_refused_by_all(run, tmp_path):
    stages = (replace(run.stages[0], optimizer=replace(run.stages[0].optimizer, beta1=0.5)), run.stages[1])
    begun = time.monotonic()
    ended = run_all(Job((run, replace(run, stages=stages)), tmp_path / "run"), processes=2, devices=2)
    assert [code for code, _ in ended] == [1, 1], ended
    for _, said in ended:
        assert "process 1: this has another configuration than the first process (stages.0.optimizer.beta1: " in said
    assert time.monotonic() - begun < 120  # nobody waited for a process that had gone
    assert not (tmp_path / "run").exists()


def test_a_picture_that_one_cannot_read_stops_all(run, tmp_path):
    job = Job(run, tmp_path / "run", gallery=11, broken=10)
    # The first evaluation is before the first step: there is nothing to save yet.
    ended = run_all(job, processes=2, devices=2)
    assert [code for code, _ in ended] == [1, 1], ended
    assert all("JclipError" in said and "cannot be read" in said for _, said in ended)


def test_an_evaluation_that_fails_on_one_stops_all_and_costs_no_step(run, tmp_path):
    """From a bundle that exists, and the third evaluation fails on one process before it meets the others."""
    stages = (replace(run.stages[0], budget=Budget(steps=3)),)
    started = tmp_path / "started"
    (bundle,) = train(replace(run, stages=stages, evaluate_every=0), started).bundles
    run = replace(run, stages=stages, starts_from=((".*", str(bundle)),))
    ended = run_all(Job(run, tmp_path / "run", gallery=11, stumbles=(1, 2)), processes=2, devices=2)
    assert [code for code, _ in ended] == [1, 1], ended
    assert all("process 1: the gallery burned down" in said for _, said in ended), ended
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]


def test_an_error_of_one_out_of_turn_ends_all(run, tmp_path):
    job = Job(replace(run, evaluate_every=0), tmp_path / "run", happens={(1, 1): "error"})
    begun = time.monotonic()
    (zero, said), (one, trace) = run_all(job, processes=2, devices=2)
    assert (zero, one) == (1, 1)
    assert "JclipError: process 1: the watcher fell over" in said and "RuntimeError: the watcher fell over" in trace
    assert time.monotonic() - begun < 120
    assert not list((tmp_path / "run" / "checkpoints").iterdir())  # to which the other would not have come


@pytest.mark.slow
def test_a_process_that_is_gone_is_missed(tmp_path):
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
