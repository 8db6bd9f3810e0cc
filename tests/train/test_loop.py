"""Whole runs: the reduced recipes of both papers train and resume to the bit; rules of the loop, on the toy."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.images.on_host import HostAugmentation
from jclip.stages import Budget
from jclip.train.assembly import StageParts
from jclip.train.health import all_finite, first_broken
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from jclip.train.preparing import prepare
from jclip.train.state import whole_params
from tests.train.assembled import assembled
from tests.train.runs import RECIPES, Watch, assert_same_bundles, bundles, leaves, losses
from tests.train.toy import toy


def lively(run):
    """Returns the run with augmentation and dropout in its stages."""
    augmentation = Augmentation(scale=0.2, rotate=10.0, translate=0.1, flip=0.5, hue=20.0)
    stages = tuple(
        replace(
            stage,
            objective=replace(stage.objective, augmentation=augmentation),
            dropout=True,
            optimizer=replace(stage.optimizer, learning_rate=1e-3, warmup_steps=0),
        )
        for stage in run.stages
    )
    return replace(run, stages=stages)


@pytest.mark.parametrize("recipe", [pytest.param(RECIPES[0], marks=pytest.mark.slow), RECIPES[1]], indirect=True)
def test_both_stages_of_both_recipes_train_and_resume_to_the_bit(recipe, tmp_path):
    taught = recipe.stages[0].objective.title == "teacher learning"
    run, start = replace(recipe if taught else lively(recipe), checkpoint_every=1, keep_checkpoints=9), {}

    def evaluator(variables):
        if not start:  # before the first step
            start.update(rules.paths_of(jax.device_get(variables["params"])))
        return {"figure": 1.0}

    outcome = train(run, tmp_path / "whole", evaluators={"toy": evaluator})
    assert outcome.finished and outcome.position.total == 4
    assert [folder.name for folder in outcome.bundles] == [f"{i + 1}-{s.name}" for i, s in enumerate(run.stages)]
    journal = [line for line in read_journal(tmp_path / "whole" / "metrics.jsonl") if line["kind"] == "train"]
    assert [(line["stage"], line["step"]) for line in journal] == [(s.name, n) for s in run.stages for n in (1, 2)]
    assert all(np.isfinite(line["loss"]) for line in journal)
    if not taught:
        assert {"image_to_text_r1", "text_to_image_r1", "scale", "gradient_norm"} <= journal[0].keys()

    # Frozen parameters do not move, and trained ones do.
    first, second = map(leaves, outcome.bundles)
    assert any(not np.array_equal(first[path], start[path]) for path in first if path.startswith("text/layers"))
    for path in first:
        if path.startswith("image/") or (taught and path == "text/projection/kernel"):
            np.testing.assert_array_equal(first[path], start[path].astype(np.float32))
    if not taught:
        assert any(not np.array_equal(second[path], first[path]) for path in first if path.startswith("image/"))

    # As if killed in the second stage: only the checkpoint of its first step is left.
    for folder in (*(tmp_path / "whole" / "checkpoints" / name for name in "56"), outcome.bundles[1]):
        shutil.rmtree(folder)
    before = losses(tmp_path / "whole")
    resumed = train(run, tmp_path / "whole", watcher=(watch := Watch()))
    assert watch.steps == [2]
    again = leaves(resumed.bundles[1])
    assert second.keys() == again.keys()
    assert all(np.array_equal(second[path], again[path]) for path in second)
    assert losses(tmp_path / "whole") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"augmentation": Augmentation()}, {"host_augmentation": HostAugmentation()}, {"dropout": False}], ids=str
)
def test_augmentation_and_dropout_act(chinese_clip, tmp_path, change):
    run = lively(replace(chinese_clip, stages=chinese_clip.stages[:1]))
    (stage,) = run.stages
    assert run.model.text.dropout > 0 and stage.objective.host_augmentation.changes
    other = (
        replace(stage, **change)
        if "dropout" in change
        else replace(stage, objective=replace(stage.objective, **change))
    )
    other = replace(run, stages=(other,))
    with_them, without = (leaves(train(one, tmp_path / name).bundles[0]) for name, one in (("a", run), ("b", other)))
    assert any(not np.array_equal(leaf, without[path]) for path, leaf in with_them.items())


@pytest.mark.parametrize("stop_after", [2, 3])  # between two stages, and in the second
def test_stopped_and_resumed_ends_the_same_to_the_bit(toy_run, trained_once, tmp_path, stop_after):
    run = lively(toy_run)
    whole = trained_once(run)
    stopped = train(run, tmp_path / "parts", stop_after=stop_after)
    assert not stopped.finished and stopped.position.total == stop_after
    resumed = train(run, tmp_path / "parts")
    assert resumed.finished
    assert_same_bundles(resumed.bundles, bundles(whole))
    assert losses(tmp_path / "parts") == losses(whole)


def test_a_shape_is_compiled_once_and_before_any_host_runs_it(one_stage, tmp_path, monkeypatch):
    """Collectives time out if a host is late."""
    run = toy(one_stage, steps=4, buckets=(6, 8), bucket_window=4)
    made, read, barriers = [], [], []
    place = StageParts.place
    monkeypatch.setattr(
        StageParts,
        "place",
        lambda part, batch: made.append(part._programs) or read.append(batch["text"].shape[1]) or place(part, batch),
    )
    monkeypatch.setattr("jclip.train.stage_loop.barrier", lambda: barriers.append(len(read)))
    assert train(run, tmp_path / "run").finished
    assert set(read) == {6, 8}
    assert barriers == [1 + read.index(length) for length in dict.fromkeys(read)]
    assert len(made[0]) == 2


def test_a_finished_run_is_finished_at_once(toy_run, tmp_path):
    first = train(toy_run, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert train(toy_run, tmp_path / "run") == first
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_ctrl_c_stops_between_steps_with_a_checkpoint(toy_run, tmp_path):
    outcome = train(toy_run, tmp_path / "run", watcher=Watch(lambda step: os.kill(os.getpid(), signal.SIGINT)))
    assert not outcome.finished and outcome.position.total == 1 and outcome.signal == signal.SIGINT
    assert train(toy_run, tmp_path / "run").finished


def test_a_checkpoint_from_another_config_is_refused_and_kept(toy_run, tmp_path):
    train(toy_run, tmp_path / "run", stop_after=1)
    with pytest.raises(JclipError, match=r"stages\.0\.batch_size: 8, now 32.*choose another --workdir"):
        train(toy(toy_run, batch_size=32), tmp_path / "run")
    assert train(toy_run, tmp_path / "run").finished


def test_logging_may_change_between_calls(toy_run, tmp_path):
    train(toy_run, tmp_path / "run", stop_after=1)
    assert train(replace(toy_run, log_every=2), tmp_path / "run").finished


@pytest.mark.parametrize("every", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_run(one_stage, tmp_path, every):
    (stage,) = one_stage.stages
    wild = replace(stage, optimizer=replace(stage.optimizer, learning_rate=1e30))
    saved = r"The last checkpoint in \S+ is from an earlier step" if every else "There is no earlier checkpoint, so"
    message = rf"^stage 'image-frozen': the loss is nan at step 2; \S+ is not finite\. {saved}"
    with pytest.raises(JclipError, match=message):
        train(replace(one_stage, stages=(wild,), checkpoint_every=every), tmp_path / "run")
    assert bool(list((tmp_path / "run" / "checkpoints").iterdir())) == bool(every)


def test_what_is_not_finite_is_named(toy_run, tmp_path):
    state = assembled(toy_run).start()
    assert all_finite(state) and first_broken(state) is None
    slots = jax.tree.map(lambda leaf: leaf * jnp.inf + 1 if leaf.ndim == 2 else leaf, state.slots)
    assert not all_finite(state._replace(slots=slots))
    assert first_broken(state._replace(slots=slots)).startswith("slots/")
    broken = {"text": {"w": jnp.array([1.0, jnp.nan])}}
    assert first_broken(state._replace(trainable=broken, slots=slots)) == "text/w"


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(chinese_clip, tmp_path):
    odd = replace(chinese_clip, stages=(replace(chinese_clip.stages[0], batch_size=13),))
    with pytest.raises(JclipError, match="batch of 13 is not divisible by 8 devices"):
        train(odd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_too_large_for_the_tower_is_refused(chinese_clip, tmp_path):
    model = replace(chinese_clip.model, text=replace(chinese_clip.model.text, vocab_size=5))
    with pytest.raises(JclipError, match="tokens, but the model has embeddings for 5: use"):
        train(replace(chinese_clip, model=model), tmp_path / "run")


def test_a_teacher_with_other_towers_is_refused(altclip, tmp_path):
    first, second = altclip.stages
    teacher = first.objective
    wrong = replace(first, objective=replace(teacher, model=replace(teacher.model, embed_dim=7)))
    with pytest.raises(
        JclipError, match=r"the towers of the teacher in .* differ from objective\.model \(embed_dim: 7, now 64"
    ):
        train(replace(altclip, stages=(wrong, second)), tmp_path / "run")


def test_parameters_start_from_a_bundle(altclip, tmp_path):
    """The bundle is of another model with the same image tower; the text tower is initialised."""
    source = altclip.stages[0].objective.bundle
    start = ((r"image/.*|logit_scale", source), (r"text/.*", ""))
    devices, _, parts = prepare(replace(altclip, starts_from=start, seed=5), tmp_path / "run")
    with jax.set_mesh(devices.mesh):
        params = rules.paths_of(jax.device_get(whole_params(parts[0].start())))
    expected, found = leaves(Path(source)), {path for path in params if path.startswith("image/")}
    assert found
    for path in (*found, "logit_scale"):
        np.testing.assert_array_equal(params[path], expected[path])


def test_evaluators_are_called_at_the_start_and_after_each_stage(toy_run, tmp_path):
    seen = []

    def evaluator(variables):
        seen.append(np.asarray(variables["params"]["text"]["projection"]["kernel"]))
        return {"r1": len(seen) / 10}

    train(toy_run, tmp_path / "run", evaluators={"toy": evaluator})
    records = [line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "evaluation"]
    assert [(line["total"], line["toy/r1"]) for line in records] == [(0, 0.1), (2, 0.2), (4, 0.3)]
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])


def test_a_cut_off_journal_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"kind": "train", "total": 1}) + '\n{"kind": "tra')
    assert read_journal(path) == [{"kind": "train", "total": 1}]


def test_a_second_run_in_the_same_folder_is_refused(toy_run, tmp_path):
    refusals = []

    def second(step):
        with pytest.raises(JclipError) as error:
            train(toy_run, tmp_path / "run")
        refusals.append(str(error.value))

    assert train(toy_run, tmp_path / "run", watcher=Watch(second)).finished
    assert len(refusals) == 4 and all("another run is using" in refusal for refusal in refusals)


def test_a_last_bundle_that_was_taken_away_comes_back(toy_run, tmp_path):
    bundle = train(toy_run, tmp_path / "run").bundles[-1]
    before = leaves(bundle)
    shutil.rmtree(bundle)
    assert train(toy_run, tmp_path / "run").bundles[-1] == bundle
    after = leaves(bundle)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_the_budget_is_kept(toy_run, tmp_path):
    first, second = toy_run.stages
    run, watch = replace(toy_run, stages=(replace(first, budget=Budget(steps=3)), second)), Watch()
    assert train(run, tmp_path / "run", watcher=watch).position.total == 5
    assert watch.steps == [1, 2, 3, 1, 2]
