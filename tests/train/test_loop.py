"""Whole runs of both papers' recipes, reduced: they train, stop, resume to the bit, and refuse what cannot be."""

import json
import os
import shutil
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.stages import Budget
from jclip.train.assembly import StageParts, assemble, devices_of
from jclip.train.health import all_finite, first_broken
from jclip.train.logging.telemetry import read_journal
from jclip.train.loop import train
from tests.train.conftest import RECIPES
from tests.train.runs import Watch, assert_same_bundles, leaves, losses


def test_both_stages_of_both_recipes_train(recipe, tmp_path):
    outcome = train(recipe, tmp_path / "run")
    assert outcome.finished and outcome.position.total == 4
    assert [folder.name for folder in outcome.bundles] == [f"{i + 1}-{s.name}" for i, s in enumerate(recipe.stages)]
    journal = [line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [(line["stage"], line["step"]) for line in journal] == [(s.name, n) for s in recipe.stages for n in (1, 2)]
    assert all(np.isfinite(line["loss"]) for line in journal)


def test_frozen_parameters_do_not_move_and_trained_ones_do(recipe, tmp_path):
    first, second = train(recipe, tmp_path / "run").bundles
    start = leaves(train(replace(recipe, stages=_at_rate_zero(recipe)), tmp_path / "still").bundles[0])
    after = leaves(first)
    text_moved = [
        path for path in after if path.startswith("text/layers") and not np.array_equal(after[path], start[path])
    ]
    assert text_moved
    for path in after:
        if path.startswith("image/"):
            np.testing.assert_array_equal(after[path], start[path])
    if recipe.name == "altclip":
        np.testing.assert_array_equal(after["text/projection/kernel"], start["text/projection/kernel"])
    else:
        assert any(not np.array_equal(leaves(second)[p], after[p]) for p in after if p.startswith("image/"))


def _at_rate_zero(run):
    stage = run.stages[0]
    return (replace(stage, optimizer=replace(stage.optimizer, learning_rate=1e-30)),)  # 0 is refused


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_stopped_and_resumed_ends_the_same_to_the_bit(recipe, tmp_path, stop_after):
    whole = train(recipe, tmp_path / "whole")
    stopped = train(recipe, tmp_path / "parts", stop_after=stop_after)
    assert not stopped.finished
    resumed = train(recipe, tmp_path / "parts")
    assert resumed.finished
    assert_same_bundles(resumed.bundles, whole.bundles)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_length_is_compiled_once_and_no_host_begins_a_step_while_another_compiles(
    chinese_clip, tmp_path, monkeypatch
):
    """Collectives give up on a host that comes late. This one believes that there are others."""
    stage = replace(chinese_clip.stages[0], batch_size=8, budget=Budget(steps=4), buckets=(6, 8), bucket_window=4)
    made, read, met = [], [], []
    monkeypatch.setattr("jclip.train.preparing.assemble", lambda *given: made.append(assemble(*given)) or made[-1])
    place = StageParts.place
    monkeypatch.setattr(
        StageParts, "place", lambda part, batch: read.append(batch["text"].shape[1]) or place(part, batch)
    )
    monkeypatch.setattr("jclip.train.loop.alone", lambda: False)
    monkeypatch.setattr("jclip.train.loop.meet", lambda: met.append(len(read)))
    assert train(replace(chinese_clip, stages=(stage,)), tmp_path / "run").finished
    assert set(read) == {6, 8}
    assert met == [1 + read.index(length) for length in dict.fromkeys(read)]
    assert made[0].compiled._cache_size() == 2


def test_a_finished_run_is_finished_at_once(chinese_clip, tmp_path):
    first = train(chinese_clip, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert train(chinese_clip, tmp_path / "run") == first
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_ctrl_c_stops_between_steps_with_a_checkpoint(chinese_clip, tmp_path):
    impatient = Watch(lambda step: os.kill(os.getpid(), signal.SIGINT))
    outcome = train(chinese_clip, tmp_path / "run", watcher=impatient)
    assert not outcome.finished and outcome.position.total == 1
    assert train(chinese_clip, tmp_path / "run").finished


def test_a_checkpoint_from_another_config_is_refused_and_kept(chinese_clip, tmp_path):
    train(chinese_clip, tmp_path / "run", stop_after=1)
    other = replace(chinese_clip, stages=tuple(replace(s, batch_size=32) for s in chinese_clip.stages))
    with pytest.raises(JclipError, match=r"stages\.0\.batch_size: 16, now 32.*choose another --workdir"):
        train(other, tmp_path / "run")
    assert train(chinese_clip, tmp_path / "run").finished


def test_logging_may_change_between_calls(chinese_clip, tmp_path):
    train(chinese_clip, tmp_path / "run", stop_after=1)
    assert train(replace(chinese_clip, log_every=2), tmp_path / "run").finished


@pytest.mark.parametrize("every", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_run(chinese_clip, tmp_path, every):
    optimizer = replace(chinese_clip.stages[0].optimizer, learning_rate=1e30, warmup_steps=0)
    wild = replace(chinese_clip.stages[0], optimizer=optimizer, budget=Budget(steps=6))
    saved = (
        r"The last checkpoint in \S+ is from before" if every else "No checkpoint was due before, and the same command"
    )
    message = rf"^stage 'image-frozen': the loss is nan at step \d; the first that is not finite is \S+\. {saved}"
    with pytest.raises(JclipError, match=message) as told:
        train(replace(chinese_clip, stages=(wild,), checkpoint_every=every), tmp_path / "run")
    names = leaves(train(replace(chinese_clip, stages=chinese_clip.stages[:1]), tmp_path / "fine").bundles[0])
    assert any(f" {name}" in f" {told.value}" for name in names)
    assert bool(list((tmp_path / "run" / "checkpoints").iterdir())) == bool(every)


def test_what_is_not_finite_is_named(chinese_clip):
    part = assemble(chinese_clip, 0, devices_of(chinese_clip))
    with jax.set_mesh(part.mesh):
        state = part.start()
    assert all_finite(state) and first_broken(state) is None
    slots = jax.tree.map(lambda leaf: leaf * jnp.inf + 1 if leaf.ndim == 3 else leaf, state.slots)
    assert not all_finite(state._replace(slots=slots))
    assert first_broken(state._replace(slots=slots)).startswith("slots/")
    bias = {"projection": {"kernel": jnp.array([1.0, jnp.nan])}}
    assert first_broken(state._replace(trainable={"text": bias}, slots=slots)) == "text/projection/kernel"


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(chinese_clip, tmp_path):
    odd = replace(chinese_clip, stages=(replace(chinese_clip.stages[0], batch_size=13),))
    with pytest.raises(JclipError, match="batch of 13 is not divisible by 8 devices"):
        train(odd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_too_large_for_the_tower_is_refused(chinese_clip, tmp_path):
    model = replace(chinese_clip.model, text=replace(chinese_clip.model.text, vocab_size=5))
    with pytest.raises(JclipError, match="vocab_size is 5: raise it"):
        train(replace(chinese_clip, model=model), tmp_path / "run")


@pytest.mark.parametrize("recipe", RECIPES[:1], indirect=True)
def test_a_teacher_with_other_towers_is_refused(recipe, tmp_path):
    objective = recipe.stages[0].objective
    other = replace(objective, model=replace(objective.model, embed_dim=7))
    stages = (replace(recipe.stages[0], objective=other), *recipe.stages[1:])
    with pytest.raises(
        JclipError, match=r"the teacher in .* has other towers than the run says \(embed_dim: 7, now 64"
    ):
        train(replace(recipe, stages=stages), tmp_path / "run")


def test_parameters_start_from_a_bundle(chinese_clip, tmp_path):
    source = train(chinese_clip, tmp_path / "first").bundles[-1]
    rest = _at_rate_zero(chinese_clip)
    start = ((r"image/.*|logit_scale", str(source)), (r"text/.*", ""))
    second = leaves(
        train(replace(chinese_clip, stages=rest, starts_from=start, seed=5), tmp_path / "second").bundles[0]
    )
    first = leaves(source)
    for path in first:
        assert np.array_equal(first[path], second[path]) == (not path.startswith("text/") or _constant(first[path])), (
            path
        )


def _constant(leaf):
    return np.all(leaf == leaf.flat[0])


def test_evaluators_are_called_at_the_start_and_after_each_stage(chinese_clip, tmp_path):
    seen = []

    def evaluator(variables):
        seen.append(float(variables["params"]["logit_scale"]))
        return {"r1": len(seen) / 10}

    train(chinese_clip, tmp_path / "run", evaluators={"toy": evaluator})
    records = [line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "evaluation"]
    assert [(line["total"], line["toy/r1"]) for line in records] == [(0, 0.1), (2, 0.2), (4, 0.3)]


def test_a_cut_off_journal_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"kind": "train", "total": 1}) + '\n{"kind": "tra')
    assert read_journal(path) == [{"kind": "train", "total": 1}]


def test_a_second_run_in_the_same_folder_is_refused(chinese_clip, tmp_path):
    refusals = []

    def second(step):
        with pytest.raises(JclipError) as error:
            train(chinese_clip, tmp_path / "run")
        refusals.append(str(error.value))

    assert train(chinese_clip, tmp_path / "run", watcher=Watch(second)).finished
    assert len(refusals) == 4 and all("another run is at work" in refusal for refusal in refusals)


def test_a_last_bundle_that_was_taken_away_comes_back(chinese_clip, tmp_path):
    bundle = train(chinese_clip, tmp_path / "run").bundles[-1]
    before = leaves(bundle)
    shutil.rmtree(bundle)
    assert train(chinese_clip, tmp_path / "run").bundles[-1] == bundle
    after = leaves(bundle)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[path], after[path]) for path in before)
