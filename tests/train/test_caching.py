"""Caches of frozen towers: training gives the same result without the tower, and files are never incomplete."""

import os
import signal
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jclip.bundle import load_bundle, save_bundle
from jclip.data.batches.features import FeatureCache
from jclip.data.sources.synthetic import SyntheticParallel, caption
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.images.on_host import HostAugmentation
from jclip.models.build import shapes
from jclip.models.dual_encoder import DualEncoder
from jclip.stages import Budget
from jclip.tokenizers.padding import Texts
from jclip.tokenizers.text import train_clip_bpe
from jclip.train.assembly import devices_of
from jclip.train.caching import _check_seen, fill
from jclip.train.checks import check
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from jclip.train.planning.flops import count_flops
from jclip.train.planning.stage_plan import plan_stages
from jclip.train.preparing import prepare
from tests.train.runs import RECIPES, Watch, holey_pairs, leaves, losses


@pytest.fixture
def first_stage(recipe):
    return in_float32(recipe)


def in_float32(run):
    """Returns the first stage of a run, four steps in float32, without a cache, so that the frozen tower runs."""
    return replace(run, dtype="float32", stages=(plain(run.stages[0], budget=Budget(steps=4)),))


def plain(stage, **changes):
    """Returns the stage without augmentation of images, because features of augmented images cannot be cached."""
    objective = stage.objective
    if objective.title == "contrastive":
        objective = replace(objective, host_augmentation=HostAugmentation())
    return replace(stage, **{"objective": objective, **changes})


def cached(run, folder, **changes):
    return replace(run, stages=(plain(run.stages[0], cache=str(folder), **changes),))


def parts_of(run, workdir):
    devices, _, (part,) = prepare(run, workdir)
    return devices.mesh, part


def is_taught(run):
    return run.stages[0].objective.title == "teacher learning"


@pytest.mark.parametrize(
    "name", ["toy_run", *(pytest.param(n, marks=pytest.mark.slow) for n in ("altclip", "chinese_clip"))]
)
def test_training_from_a_cache_is_the_same(request, name, tmp_path):
    """In float32, also if a run starts to use a cache when it resumes.

    XLA fuses a step without the tower in another way, so the last bit of a parameter may differ.
    """
    first_stage = in_float32(request.getfixturevalue(name))
    train(first_stage, tmp_path / "live")
    train(first_stage, tmp_path / "run", stop_after=1)
    train(cached(first_stage, tmp_path / "cache"), tmp_path / "run")
    (ours,), (live,) = ((tmp_path / workdir).glob("1-*") for workdir in ("run", "live"))
    for path, leaf in leaves(live).items():
        np.testing.assert_allclose(leaves(ours)[path], leaf, rtol=2e-7, atol=1e-8, err_msg=path)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "live"), rtol=1e-6)
    noted = [line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "cache"]
    assert [(line["total"], line["rows"], line["computed"]) for line in noted] == [(1, 256, 256)]


@pytest.mark.parametrize("recipe", RECIPES[:1], indirect=True)
def test_a_cache_holds_the_teachers_states(first_stage, tmp_path):
    run = cached(first_stage, tmp_path / "cache", data=(SyntheticParallel(count=20),))
    _, part = parts_of(run, tmp_path)
    (cache,) = fill_now(run, tmp_path, start(run, tmp_path)).caches
    teacher, objective = load_bundle(run.stages[0].objective.bundle), run.stages[0].objective
    ids = np.stack([Texts(teacher.tokenizer, objective.context_length)([caption(n)])[0] for n in range(20)])
    towers = DualEncoder(objective.model)
    states = jax.jit(partial(towers.apply, method="text_state"))({"params": teacher.params}, ids)
    for record in range(20):
        np.testing.assert_allclose(cache.row(record), states[record], atol=1e-5)
    batches = part.open_batches()
    batches.features = [cache]
    batch = batches[0]
    assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in part.program.batch.items()
    }


@pytest.mark.slow  # to compile, both steps
def test_training_from_a_cache_is_nearly_the_same_in_bfloat16(chinese_clip, tmp_path):
    """Rounding differs, because XLA fuses the tower with what follows it."""
    run = replace(chinese_clip, stages=(plain(chinese_clip.stages[0], budget=Budget(steps=4)),))
    assert run.dtype == "bfloat16"
    live, ours = (
        train(one, tmp_path / name).bundles[0]
        for one, name in ((run, "live"), (cached(run, tmp_path / "cache"), "cached"))
    )
    for path, leaf in leaves(live).items():
        np.testing.assert_allclose(leaves(ours)[path], leaf, rtol=0, atol=2e-4, err_msg=path)
    np.testing.assert_allclose(losses(tmp_path / "cached"), losses(tmp_path / "live"), rtol=1e-2)


def test_the_tower_is_gone_from_the_step(first_stage, tmp_path):
    """The arithmetic is counted from the jaxpr, as in the plan."""
    runs = (first_stage, cached(first_stage, tmp_path / "cache"))
    live, ours = (plan_stages(run, devices_of(run))[0].flops_per_step for run in runs)
    assert live - ours == count_flops(*frozen_tower(parts_of(first_stage, tmp_path)[1])) > 0.1 * live


def frozen_tower(part):
    objective = part.stage.objective
    if is_taught(part.run):
        teacher = DualEncoder(objective.model)
        ids = jax.ShapeDtypeStruct((part.stage.batch_size, objective.context_length), np.int32)
        return (
            lambda params, ids: teacher.apply({"params": params}, ids, method="text_state"),
            part.program.constants["teacher"],
            ids,
        )
    side = part.run.model.image.image_size
    pixels = jax.ShapeDtypeStruct((part.stage.batch_size, side, side, 3), np.float32)
    return (
        lambda variables, x: part.context.towers.apply(variables, x, method="encode_image"),
        shapes(part.run.model),
        pixels,
    )


def start(run, workdir):
    return parts_of(run, workdir)[1].start()


def fill_now(run, workdir, state, stop=lambda: False, stepped=lambda done, rows: None):
    mesh, part = parts_of(run, workdir)
    with jax.set_mesh(mesh):
        return fill(part, part.open_batches(), state, stop, stepped)


def test_a_stop_and_a_kill_leave_whole_files(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.train.caching._SHARD_ROWS", 64)
    first = replace(toy_run, stages=toy_run.stages[:1])
    run, state, done = cached(first, tmp_path / "cache"), start(first, tmp_path), []
    stop = lambda: bool(done) and done[-1] >= 150  # noqa: E731
    assert fill_now(run, tmp_path, state, stop, lambda rows, _: done.append(rows)) is None
    (folder,) = (tmp_path / "cache").iterdir()
    files = sorted(file.name for file in folder.glob("*.array_record"))
    assert files == [f"features-0000{shard}-of-00004.array_record" for shard in (0, 1)]
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    # As after a power failure: a file under its final name, whose end did not reach the disk.
    second = folder / files[1]
    second.write_bytes(second.read_bytes()[:-100])
    filled = fill_now(run, tmp_path, state)
    assert filled.computed == 256 - 64
    assert fill_now(run, tmp_path, state).computed == 0
    whole = fill_now(cached(first, tmp_path / "fresh"), tmp_path, state)
    assert whole.computed == 256
    for record in range(256):
        np.testing.assert_array_equal(filled.caches[0].row(record), whole.caches[0].row(record))


def caches_of(run, workdir, state):
    """Starts a run's cache without computing features, and returns the names of all caches in the folder."""
    assert fill_now(run, workdir, state, stop=lambda: True) is None
    return {folder.name for folder in Path(run.stages[0].cache).iterdir()}


def test_the_caches_of_two_runs_differ_where_their_numbers_do(tmp_path, recipe):
    """Other weights, preprocessing, tokenizers or data need another cache; nothing else does."""
    stage, folder = recipe.stages[0], tmp_path / "cache"
    run = cached(replace(recipe, stages=(stage,)), folder)
    state = start(run, tmp_path)
    mine = caches_of(run, tmp_path, state)
    same = cached(replace(run, log_every=7), folder, batch_size=32, max_unreadable=3, budget=Budget(steps=1))
    same = cached(same, folder, data=(replace(stage.data[0], weight=2.0),))
    assert caches_of(same, tmp_path, state) == mine
    other = [(cached(run, folder, data=(replace(stage.data[0], count=300),)), state)]
    objective = run.stages[0].objective
    if is_taught(run):
        teacher, changed = load_bundle(objective.bundle), {}
        changed["weights"] = replace(teacher, params=jax.tree.map(lambda leaf: leaf * 2, teacher.params))
        changed["words"] = replace(teacher, tokenizer=train_clip_bpe([caption(n) for n in range(512)], 540))
        for name, bundle in changed.items():
            save_bundle(bundle, tmp_path / name)
            other.append((cached(run, folder, objective=replace(objective, bundle=str(tmp_path / name))), state))
        other.append((cached(run, folder, objective=replace(objective, context_length=12)), state))
    else:
        other.append((run, state._replace(frozen=jax.tree.map(lambda leaf: leaf * 2, state.frozen))))
        other.append((replace(run, dtype="float32"), state))
        other.append((replace(run, preprocessing=replace(run.preprocessing, resize="crop")), state))
    for number, (one, weights) in enumerate(other, 2):
        assert len(caches_of(one, tmp_path, weights)) == number


def test_what_the_tower_could_not_read_is_replaced_as_without_a_cache(toy_run, tmp_path):
    """Worker processes replace the same records."""
    stage = plain(toy_run.stages[0], batch_size=16, data=(holey_pairs(tmp_path / "pairs"),), max_unreadable=2)
    live = replace(toy_run, stages=(stage,))
    run = cached(live, tmp_path / "cache")
    working_run = cached(run, tmp_path / "cache", workers=1)
    plain_batches, batches, working = (parts_of(one, tmp_path)[1].open_batches() for one in (live, run, working_run))
    batches.features = working.features = fill_now(run, tmp_path, start(run, tmp_path)).caches
    with closing(working.iterate()) as made:
        for step in range(4):  # an epoch is three
            batch, expected = batches[step], plain_batches[step]
            features = batch.pop("image_feature")
            assert features.shape == (len(expected.pop("image")), run.model.embed_dim)
            other = next(made)
            np.testing.assert_array_equal(other.pop("image_feature"), features)
            for name, rows in expected.items():
                np.testing.assert_array_equal(batch[name], rows)
                np.testing.assert_array_equal(other[name], rows)
    assert len(batches.unreadable) == 2
    assert batches.unreadable == plain_batches.unreadable == working.unreadable
    strict = parts_of(cached(run, tmp_path / "cache", max_unreadable=1), tmp_path)[1].open_batches()
    strict.features = batches.features
    with pytest.raises(JclipError, match=r"record \d+ \(index \d+ of .*cannot be read.*max_unreadable \(now 1\)"):
        [strict[step] for step in range(3)]


def test_a_signal_while_the_cache_is_made_stops_the_run(toy_run, tmp_path):
    def act(step):
        if step == 64:
            os.kill(os.getpid(), signal.SIGTERM)

    run = cached(toy_run, tmp_path / "cache")
    outcome = train(run, tmp_path / "run", watcher=Watch(act))
    assert not outcome.finished and outcome.signal == signal.SIGTERM and outcome.position.total == 0


def test_errors_say_what_to_do(chinese_clip, tmp_path):
    run = cached(chinese_clip, "x")
    check(run)
    augmented, objective = "its images are augmented: omit augmentation and", run.stages[0].objective
    for changes, words in (
        ({"trains": ((".*", True),)}, "its image tower trains: freeze image"),
        ({"objective": replace(objective, augmentation=Augmentation(flip=0.5))}, augmented),
        ({"objective": replace(objective, host_augmentation=HostAugmentation(flip=0.5))}, augmented),
        ({"objective": replace(objective, patch_dropout=0.5)}, "patch_dropout drops other patches"),
    ):
        with pytest.raises(JclipError, match=rf"stage '.*': cache needs image features that .*, but {words}"):
            check(cached(chinese_clip, "x", **changes))
    (tmp_path / "file").write_text("")
    with pytest.raises(JclipError, match="file"):
        fill_now(cached(run, tmp_path / "file" / "cache"), tmp_path, start(run, tmp_path))


def test_files_that_a_networks_disk_shows_late_are_waited_for(tmp_path, monkeypatch):
    """A process that did not write them knows only from process 0 that they exist."""
    cache = FeatureCache(tmp_path / "cache", 2, 3, "float32", 1)
    cache.write(0, [np.zeros(3, np.float32)])
    monkeypatch.setattr("jclip.parallel.processes.is_single_process", lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr("jclip.parallel.processes._DISK_SECONDS", 0)
        with pytest.raises(JclipError, match="lacks 1 files that process 0 wrote: give all .* the same"):
            _check_seen([cache])
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", lambda seconds: cache.write(1, [np.zeros(3, np.float32)]))
        _check_seen([cache])
