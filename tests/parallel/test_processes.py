"""Two real processes that stay in step, whatever happens to one of them alone."""

import json
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jclip.train.loop import train
from tests.parallel.scenes import SCENES
from tests.train import toy
from tests.train.cluster import finish, start_all
from tests.train.runs import leaves, losses


@pytest.fixture(scope="session")
def played(made_once):
    """Returns a function: scene -> (lines of both processes, their errors, the scene's folder). Starts them once."""

    def play(folder):
        run = toy.toy_run(folder / "inputs")
        (folder / "job.pickle").write_bytes(pickle.dumps((folder, run)))
        begun = time.monotonic()
        ended = finish(
            start_all([[sys.executable, "-m", "tests.parallel.scenes", folder / "job.pickle"]] * 2, devices=1)
        )
        assert [code for code, _ in ended] == [0, 0], ended
        assert time.monotonic() - begun < 110, "one waited in vain for the other"

    folder = made_once("two_processes", play)

    def of(scene):
        told = [json.loads((folder / f"{scene}-{process}.json").read_text()) for process in (0, 1)]
        return [each["lines"] for each in told], [each["error"] for each in told], folder / scene

    return of


def saved(folder):
    return sorted(path.name for path in (folder / "run" / "checkpoints").iterdir())


def test_exchanges(played):
    (zero, one), errors, _ = played("exchanges")
    assert errors == [None, None]
    assert zero[:4] == one[:4] == ["all ['word 0', 'word 1']", "one [{'value': [1]}]", "none []", "first from 0 None"]
    assert zero[4:] == [
        "everywhere JclipError: process 1: act failed",
        "a bug JclipError: process 1: act failed",
        "on first JclipError: process 0: writing failed",
        "outer JclipError: process 1: before the inner exchange failed",
        "inner JclipError: process 1: inner failed",
        "same JclipError: process 1: the number differs from process 0's (0, here 1): start all with the same one",
        "still in step ['0', '1']",
    ]
    assert one[4:] == [zero[4], "a bug ValueError: act failed", *zero[6:]]


@pytest.mark.parametrize(
    ("scene", "zero", "one"),
    [
        ("out_of_turn", "JclipError: process 1: this one stumbled", "JclipError: this one stumbled"),
        ("ending", "JclipError: process 1: ended with code 2: see its own message", "SystemExit: 2"),
        ("watcher_fails", "JclipError: process 1: the watcher fell over", "RuntimeError: the watcher fell over"),
    ],
)
def test_an_error_of_one_ends_all(played, scene, zero, one):
    lines, errors, _ = played(scene)
    assert errors == [zero, one] and lines == [[], []]


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ("other_folders", "1 is not the folder that process 0 sees: give all processes the same one"),
        ("unreadable_picture", "cannot be read"),
        ("other_configuration", "process 1: the configuration differs from process 0's (stages.0.optimizer.beta1: "),
        ("evaluation_stumbles", "process 1: the gallery burned down"),
        ("disk_of_one_is_full", "a checkpoint cannot be written ("),
    ],
)
def test_all_raise_the_error_of_one(played, scene, words):
    _, errors, _ = played(scene)
    assert all(re.match(r"(Jclip|Picture)Error: ", error) and words in error for error in errors), errors


def test_checkpoints_after_an_error(played):
    assert not (played("other_configuration")[2] / "run").exists()
    assert saved(played("watcher_fails")[2]) == []  # the other process would not have joined the save
    assert saved(played("evaluation_stumbles")[2]) == ["1"]  # no step is lost
    assert (played("disk_of_one_is_full")[2] / "checkpoints" / "1").is_dir()


def test_arrays_are_placed(played):
    assert played("places")[:2] == ([["placed"], ["placed"]], [None, None])


def test_a_checkpoint_that_one_process_cannot_read_is_skipped_by_all(played):
    lines, errors, folder = played("damage")
    assert errors == [None, None] and lines == [["warning True", "restored 1 1"]] * 2
    assert (folder / "damaged" / "2").is_dir()


def test_a_signal_to_one_stops_all_at_the_same_step(played):
    (zero, one), errors, folder = played("signal_to_one")
    assert errors == [None, None] and zero == one
    _, finished, total, signal = zero[0].split()
    assert (finished, signal) == ("False", "15")
    assert saved(folder) == [total]


def test_two_processes_train_as_one_does(played, tmp_path):
    lines, errors, folder = played("whole_run")
    assert errors == [None, None] and lines == [["outcome True 4 None"]] * 2
    run = pickle.loads((folder.parent / "job.pickle").read_bytes())[1]
    whole = train(run, tmp_path / "run")
    for (step, loss), (other, expected) in zip(losses(folder / "run"), losses(tmp_path / "run"), strict=True):
        assert step == other and loss == pytest.approx(expected, rel=1e-5)
    for bundle in whole.bundles:
        found = leaves(folder / "run" / bundle.name)
        for path, leaf in leaves(bundle).items():
            np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=1e-6)


def test_every_scene_is_tested():
    tests = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{scene.__name__}"' in tests for scene in SCENES)
