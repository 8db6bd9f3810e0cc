"""Caches of frozen towers: the same training without the tower, and nothing but whole files."""

import os
from dataclasses import replace

import jax
import numpy as np
import pytest

from jclip.data.cache import Cache, describe
from jclip.data.folders import write_parallel
from jclip.data.host_augment import HostAugmentation
from jclip.data.images import Preprocessing
from jclip.data.records import Translation
from jclip.data.sources import ParallelFolder
from jclip.data.synthetic import caption, translation
from jclip.errors import JclipError
from jclip.stages import Budget
from jclip.train.caching import fill
from jclip.train.flops import count_flops
from jclip.train.loop import train
from jclip.train.plan import plan
from jclip.train.preparing import prepare
from jclip.train.run import check
from jclip.train.telemetry import read_journal
from tests.train.runs import Watch, leaves, losses


@pytest.fixture
def first_stage(recipe):
    """The first stage of a recipe, four steps of it, without a cache: the frozen tower runs."""
    return replace(recipe, dtype="float32", stages=(plain(recipe.stages[0], budget=Budget(steps=4)),))


def plain(stage, **changes):
    """A stage whose pictures are not augmented, as Chinese-CLIP's are: only such features stay."""
    return replace(stage, **{"host_augmentation": HostAugmentation(), **changes})


def cached(run, folder, **changes):
    return replace(run, stages=(plain(run.stages[0], cache=str(folder), **changes),))


def parts_of(run, workdir):
    mesh, _, (part,) = prepare(run, workdir)
    return mesh, part


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_from_a_cache_is_the_same(first_stage, tmp_path, dtype):
    """To the bit in float32, measured; in bfloat16 XLA rounds elsewhere where it fuses the tower with what follows."""
    run = replace(first_stage, dtype=dtype)
    train(run, tmp_path / "live")
    train(cached(run, tmp_path / "cache"), tmp_path / "cached")
    live, ours = (leaves(next((tmp_path / name).glob("1-*"))) for name in ("live", "cached"))
    for path in live:
        if dtype == "float32":
            np.testing.assert_array_equal(ours[path], live[path], err_msg=path)
        else:
            np.testing.assert_allclose(ours[path], live[path], rtol=0, atol=2e-4, err_msg=path)
    one, other = losses(tmp_path / "live"), losses(tmp_path / "cached")
    assert [step for step, _ in one] == [step for step, _ in other] == [1, 2, 3, 4]
    np.testing.assert_allclose(
        [loss for _, loss in other], [loss for _, loss in one], rtol=0 if dtype == "float32" else 1e-2
    )


def test_the_tower_is_gone_from_the_step(first_stage, tmp_path):
    """Counted from the jaxpr, and by the compiler; the plan says so too."""
    counted, compiled = [], []
    for run in (first_stage, cached(first_stage, tmp_path / "cache")):
        mesh, part = parts_of(run, tmp_path)
        with jax.set_mesh(mesh):
            given = (part.state_shapes, part.constant_shapes, part.batch_shapes(), jax.random.key(0))
            counted.append(count_flops(part.step, *given))
            compiled.append(part.compiled.lower(*given).compile().cost_analysis()["flops"])
            tower = count_flops(*frozen_tower(part))
        assert plan(run)[0].flops_per_step == counted[-1]
    assert counted[0] - counted[1] == tower > 0.1 * counted[0]
    assert compiled[1] < 0.95 * compiled[0]


def frozen_tower(part):
    if part.stage.objective == "teacher":
        from jclip.models.dual_encoder import DualEncoder

        teacher = DualEncoder(part.run.teacher.model)
        ids = jax.ShapeDtypeStruct((part.stage.batch_size, part.run.teacher.context_length), np.int32)
        return (
            lambda params, ids: teacher.apply({"params": params}, ids, method="text_state"),
            part._teacher_shapes,
            ids,
        )
    side = part.run.model.image.image_size
    pixels = jax.ShapeDtypeStruct((part.stage.batch_size, side, side, 3), np.float32)
    return lambda variables, x: part.model.apply(variables, x, method="encode_image"), part.variables, pixels


def test_a_second_run_computes_nothing(first_stage, tmp_path):
    run = cached(first_stage, tmp_path / "cache")
    for name in ("one", "other"):
        train(run, tmp_path / name)
    found = [read_journal(tmp_path / name / "metrics.jsonl") for name in ("one", "other")]
    rows = [next(line for line in lines if line["kind"] == "cache") for lines in found]
    assert [line["computed"] for line in rows] == [256, 0] and rows[0]["rows"] == 256


def fill_now(run, workdir, stop=lambda: False, stepped=lambda done, rows: None):
    mesh, part = parts_of(run, workdir)
    with jax.set_mesh(mesh):
        return fill(part, part.start(), stop, stepped)


def test_a_stop_and_a_kill_leave_whole_files(first_stage, tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.train.caching._SHARD_ROWS", 64)
    run, done = cached(first_stage, tmp_path / "cache"), []
    stop = lambda: bool(done) and done[-1] >= 150  # noqa: E731
    assert fill_now(run, tmp_path, stop, lambda rows, _: done.append(rows)) is None
    (folder,) = (tmp_path / "cache").iterdir()
    files = sorted(file.name for file in folder.glob("*.array_record"))
    assert files == [f"features-0000{shard}-of-00004.array_record" for shard in (0, 1)]
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    # As if the power had gone: a file whose end did not reach the disk, under its own name.
    second = folder / files[1]
    second.write_bytes(second.read_bytes()[:-100])
    filled = fill_now(run, tmp_path)
    assert filled.computed == 256 - 64
    whole = fill_now(cached(first_stage, tmp_path / "fresh"), tmp_path)
    assert whole.computed == 256
    for record in range(256):
        np.testing.assert_array_equal(filled.caches[0].row(record), whole.caches[0].row(record))


def test_the_caches_of_two_runs_differ_where_their_numbers_do(tmp_path, recipe):
    """Weights, preprocessing or tokenizer, and data: each of them is another cache, and nothing else is."""
    stage = recipe.stages[0]
    run = cached(replace(recipe, stages=(stage,)), tmp_path / "cache")
    parallel = stage.objective == "teacher"
    fill_now(run, tmp_path)
    same = [
        replace(run, log_every=7),
        cached(run, tmp_path / "cache", batch_size=32, max_unreadable=3, budget=Budget(steps=1)),
        cached(run, tmp_path / "cache", data=(replace(stage.data[0], weight=2.0),)),
    ]
    more = replace(stage.data[0], count=300)
    other = [cached(run, tmp_path / "cache", data=(more,))]
    if parallel:
        other += [replace(run, teacher=replace(run.teacher, context_length=12))]
    else:
        other += [replace(run, seed=5), replace(run, preprocessing=replace(run.preprocessing, resize="crop"))]
        other += [replace(run, dtype="float32")]
    for one in same:
        assert fill_now(one, tmp_path).computed == 0
    for number, one in enumerate(other, 2):
        assert fill_now(one, tmp_path).computed > 0
        assert len(list((tmp_path / "cache").iterdir())) == number


def test_a_folder_is_known_by_its_files(tmp_path):
    write_parallel(tmp_path / "text", [Translation(caption(n), translation(n), "zh") for n in range(4)])
    source = ParallelFolder(str(tmp_path / "text"))
    before = describe(source, tmp_path / "text" / "cache")
    (tmp_path / "text" / "cache").mkdir()
    (tmp_path / "text" / "cache" / "x").write_text("a cache in the folder is none of its data")
    assert describe(replace(source, weight=3.0, english_share=0.1), tmp_path / "text" / "cache") == before
    assert describe(replace(source, split="other"), tmp_path / "text" / "cache") != before
    (tmp_path / "text").rename(tmp_path / "moved")
    moved = ParallelFolder(str(tmp_path / "moved"))
    assert describe(moved, tmp_path / "moved" / "cache") == before
    (shard,) = (tmp_path / "moved").glob("*.array_record*")
    os.utime(shard, ns=(1, 1))
    assert describe(moved, tmp_path / "moved" / "cache") != before


def test_rows_and_reasons_come_back(tmp_path):
    for dtype, width in (("float32", 3), ("bfloat16", 7)):
        cache = Cache(tmp_path / dtype, 5, width, dtype, 2, first=(0, 2))
        rows = [np.arange(width, dtype=np.float32) + row for row in range(5)]
        size = width * (4 if dtype == "float32" else 2)
        reason = "x" * (size - 1)  # with its mark as long as features would be
        cache.write(0, [rows[0], reason])
        cache.write(1, rows[2:4])
        assert cache.missing() == [2]
        cache.write(2, rows[4:])
        assert cache.missing() == []
        np.testing.assert_array_equal(cache.row(0), rows[0])
        np.testing.assert_array_equal(cache.row(1, 2), rows[4])
        with pytest.raises(JclipError, match=rf"^{reason}$"):
            cache.row(0, 1)


def test_what_the_tower_could_not_read_is_replaced_as_without_a_cache(chinese_clip, tmp_path):
    from tests.data.test_pipeline import Holey

    stage = plain(chinese_clip.stages[0], data=(Holey(),), max_unreadable=10, budget=Budget(steps=4))
    run = replace(chinese_clip, dtype="float32", stages=(stage,), preprocessing=Preprocessing(size=32))
    train(run, tmp_path / "live")
    train(cached(run, tmp_path / "cache"), tmp_path / "cached")
    np.testing.assert_array_equal(losses(tmp_path / "live"), losses(tmp_path / "cached"))
    found = [
        sorted(sum((line["pictures"] for line in lines if line["kind"] == "unreadable"), []))  # noqa: RUF017
        for lines in (read_journal(tmp_path / name / "metrics.jsonl") for name in ("live", "cached"))
    ]
    assert found[0] == found[1] and len(found[0]) == 8


def test_a_run_goes_on_with_a_cache_or_without(chinese_clip, tmp_path):
    first, *rest = chinese_clip.stages
    run = replace(chinese_clip, dtype="float32", stages=(plain(first), *rest))
    train(run, tmp_path / "live")
    train(run, tmp_path / "changing", stop_after=1)
    with_cache = replace(run, stages=(replace(run.stages[0], cache=str(tmp_path / "cache")), *run.stages[1:]))
    assert train(with_cache, tmp_path / "changing").finished
    np.testing.assert_array_equal(losses(tmp_path / "live"), losses(tmp_path / "changing"))


def test_a_signal_while_the_cache_is_made_stops_the_run(first_stage, tmp_path):
    import signal

    def act(step):
        if step == 64:
            os.kill(os.getpid(), signal.SIGTERM)

    run = cached(first_stage, tmp_path / "cache")
    outcome = train(run, tmp_path / "run", watcher=Watch(act))
    assert not outcome.finished and outcome.signal == signal.SIGTERM and outcome.position.total == 0
    assert train(run, tmp_path / "run").finished


def test_errors_say_what_to_do(chinese_clip, tmp_path):
    run = cached(chinese_clip, "x")
    check(run)
    from jclip.data.augment import Augmentation

    for changes, words in (
        ({"trains": ((".*", True),)}, "its image tower trains: freeze image"),
        ({"augmentation": Augmentation(flip=0.5)}, "its pictures are augmented: leave augmentation and"),
        ({"host_augmentation": HostAugmentation(flip=0.5)}, "its pictures are augmented: leave augmentation and"),
        ({"patch_dropout": 0.5}, "patch_dropout leaves out other patches"),
    ):
        with pytest.raises(JclipError, match=rf"stage '.*': cache needs image features that stay, but {words}"):
            check(cached(chinese_clip, "x", **changes))
    (tmp_path / "file").write_text("")
    with pytest.raises(JclipError, match="file"):
        fill_now(cached(replace(chinese_clip, stages=chinese_clip.stages[:1]), tmp_path / "file" / "cache"), tmp_path)


def test_a_damaged_cache_is_named(tmp_path):
    cache = Cache(tmp_path, 1, 3, "float32", 1)
    cache.write(0, [np.zeros(3, np.float32)])
    (file,) = tmp_path.glob("*.array_record")
    data = bytearray(file.read_bytes())
    inside = next(at for at in range(40, len(data)) if data[at])
    data[inside : inside + 60] = bytes(60)
    file.write_bytes(bytes(data))
    with pytest.raises(JclipError, match=r"is damaged \(.*\): delete it, and it is made again"):
        cache.row(0)
