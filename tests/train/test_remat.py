"""Choice of remat: by made-up memory, by the compiler, and in a whole run."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jclip.parallel.memory import device_memory, least_device_memory
from jclip.train.assembly import assemble, devices_of
from jclip.train.loop import train
from jclip.train.planning.remat import choose_remat, least_recomputation
from jclip.train.planning.stage_plan import device_bytes, plan_stages
from jclip.units import format_size
from tests.train.runs import Watch, assert_same_bundles, leaves

MADE_UP = {"none": 100, "dots": 50, "layers": 25}


@pytest.fixture
def accelerator(monkeypatch):
    """The devices count as accelerators."""
    monkeypatch.setattr("jclip.train.planning.remat.least_recomputation", lambda part: "none")


@pytest.fixture
def part(chinese_clip, accelerator):
    return assemble(chinese_clip, 1, devices_of(chinese_clip))


def measured(part):
    return MADE_UP[part.remat]


@pytest.mark.parametrize(
    ("memory", "word"), [(106, "none"), (100, "dots"), (53, "dots"), (52, "layers"), (1, "layers")]
)
def test_the_first_that_fits(part, memory, word):
    """A step may take 95 % of the memory."""
    choice = choose_remat(part, memory, measured)
    assert choice.part.remat == choice.part.context.towers.compute.remat == word
    assert choice.part.state_shapes == part.state_shapes


def test_what_was_measured_is_said(part):
    assert choose_remat(part, 100, measured).reason == (
        '50 bytes of 100 bytes are needed; with remat "none" it needs 100 bytes'
    )
    assert choose_remat(part, 1, measured).reason == (
        'with remat "none" it needs 100 bytes; with remat "dots" it needs 50 bytes; a device has 1 bytes'
    )


def test_a_small_step_is_not_measured(part):
    choice = choose_remat(part, 2**40, lambda part: pytest.fail("measured"))
    assert choice.part is part and part.remat == "none"


def test_cached_features_have_no_activations(chinese_clip, accelerator):
    stage = replace(chinese_clip.stages[0], cache="cache")
    part = assemble(replace(chinese_clip, stages=(stage,)), 0, devices_of(chinese_clip))
    model = part.run.model
    batch = {name: each for name, each in part.program.batch.items() if name != "image_feature"}
    without = replace(part, program=replace(part.program, batch=batch))
    assert "image_feature" in part.program.batch and model.text.activation_bytes(model.embed_dim) > 0
    estimates = {choose_remat(each, 2**50, measured).reason for each in (part, without)}
    assert len(estimates) == 1


def test_a_cpu_has_at_least_dots(chinese_clip):
    part = assemble(chinese_clip, 1, devices_of(chinese_clip))
    assert choose_remat(part, 2**40, measured).remat == "dots"
    assert choose_remat(part, 100, measured).reason == "50 bytes of 100 bytes are needed"
    assert choose_remat(part, 40, measured).reason == 'with remat "dots" it needs 50 bytes; a device has 40 bytes'
    own = replace(devices_of(chinese_clip), own_memory=True)
    assert (least_recomputation(part), least_recomputation(assemble(chinese_clip, 1, own))) == ("dots", "none")


def test_devices_that_do_not_say(part):
    choice = choose_remat(part, None, lambda part: pytest.fail("measured"))
    assert (choice.part.remat, choice.reason) == ("dots", "the devices do not report their memory")


@pytest.mark.parametrize("word", ["none", "dots", "layers"])
def test_a_configured_word_stays(chinese_clip, word):
    run = replace(chinese_clip, remat=word)
    part = assemble(run, 0, devices_of(run))
    choice = choose_remat(part, 1, lambda part: pytest.fail("measured"))
    assert choice.part is part and part.remat == word


def test_a_step_that_the_compiler_refuses(part):
    def refused(part):
        if part.remat == "none":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm")
        return measured(part)

    choice = choose_remat(part, 60, refused)
    assert choice.part.remat == "dots"
    assert choice.reason == '50 bytes of 60 bytes are needed; with remat "none" it needs too much'
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        choose_remat(part, 60, lambda part: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: x")))


def test_what_is_measured_is_not_compiled_again(chinese_clip, accelerator):
    """The chosen stage keeps its program, which the run uses."""
    run = replace(chinese_clip, stages=chinese_clip.stages[1:])
    part = assemble(run, 0, devices_of(run))
    need = device_bytes(part)
    program = next(iter(part._programs.values()))
    chosen = choose_remat(part, 2 * need, device_bytes)
    assert chosen.reason == f"{format_size(need)} of {format_size(2 * need)} are needed"
    assert chosen.part is part and list(part._programs.values()) == [program]
    (plan,) = plan_stages(run, devices_of(run), compiled=True, memory=2 * need)
    assert (plan.remat, plan.remat_reason) == ("none", chosen.reason)
    assert plan.device_step_bytes + plan.device_state_bytes == need


def test_memory_of_this_machine():
    share = device_memory()
    assert share == least_device_memory()
    assert 2**28 < share * jax.local_device_count() < 2**50


def test_a_run_says_what_it_chose_and_resumes_to_the_bit(one_stage, tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.train.loop.least_device_memory", lambda: 1)
    watch = Watch()
    whole = train(one_stage, tmp_path / "whole", watcher=watch)
    said = [record for record in watch.records if record["kind"] == "remat"]
    assert [record["remat"] for record in said] == ["layers"]
    assert "a device has 1 bytes" in said[0]["reason"]
    train(one_stage, tmp_path / "parts", stop_after=2)
    assert_same_bundles(train(one_stage, tmp_path / "parts").bundles, whole.bundles)
    monkeypatch.undo()
    other = train(one_stage, tmp_path / "none").bundles[0]
    for path, leaf in leaves(other).items():
        np.testing.assert_allclose(leaf, leaves(whole.bundles[0])[path], atol=1e-4, err_msg=path)


def test_a_run_resumes_with_another_choice(one_stage, tmp_path, monkeypatch):
    train(one_stage, tmp_path / "run", stop_after=2)
    monkeypatch.setattr("jclip.train.loop.least_device_memory", lambda: None)
    watch = Watch()
    assert train(one_stage, tmp_path / "run", watcher=watch).finished
    assert [record["remat"] for record in watch.records if record["kind"] == "remat"] == ["dots"]
