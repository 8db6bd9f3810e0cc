"""Settings that make a run fit: the order in which they are tried, with made-up needs, and once with the compiler's."""

from dataclasses import replace
from pathlib import Path

import pytest

from jclip.cli.configs import parse
from jclip.cli.plan import PlanOptions
from jclip.configs.loading import load_config
from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape
from jclip.train.planning.fitting import compiled_need, fit

CONFIG = str(Path(__file__).parents[2] / "configs" / "chinese_clip" / "vit_b_16.py")
REMAT = {"none": 1.0, "dots": 0.5, "layers": 0.25}
STATE, ACTIVATIONS, BATCH = (200, 600), (800, 800), (40, 40)


def need(run, index):
    """Returns the memory of a stage: state over fsdp, activations by remat and micro-batches, and a constant batch."""
    stage = run.stages[index]
    if stage.micro_batches > 8:
        raise JclipError("the batch has 8 rows on a device")
    state = STATE[index] / run.mesh.fsdp
    return int(state + ACTIVATIONS[index] * REMAT[run.remat] / stage.micro_batches + BATCH[index])


NEEDS = (1040, 1440)
SPLIT = ("--mesh.data", "1", "--mesh.fsdp", "8")


@pytest.fixture
def run():
    return replace(load_config(CONFIG), remat="none")


@pytest.mark.parametrize(
    ("memory", "overrides", "then"),
    [
        (1440, (), (1040, 1440)),
        (1000, SPLIT, (865, 915)),
        (600, (*SPLIT, "--remat", "dots"), (465, 515)),
        (320, (*SPLIT, "--remat", "layers"), (265, 315)),
        # The first stage fits already and is not changed.
        (270, (*SPLIT, "--remat", "layers", "--stages.1.micro-batches", "2"), (265, 215)),
        (
            170,
            (*SPLIT, "--remat", "layers", "--stages.0.micro-batches", "2", "--stages.1.micro-batches", "4"),
            (165, 165),
        ),
        (
            140,
            (*SPLIT, "--remat", "layers", "--stages.0.micro-batches", "4", "--stages.1.micro-batches", "8"),
            (115, 140),
        ),
    ],
)
def test_the_first_that_fits(run, memory, overrides, then):
    found = fit(run, memory, NEEDS, need)
    assert found.fits
    assert found.needs == NEEDS
    assert dict(zip(found.overrides[::2], found.overrides[1::2], strict=True)) == dict(
        zip(overrides[::2], overrides[1::2], strict=True)
    )
    assert found.then == then


def test_nothing_fits(run):
    """Everything possible was tried, and the least memory is returned."""
    found = fit(run, 50, NEEDS, need)
    assert not found.fits
    assert found.then == ((25 + 25 + 40), (75 + 25 + 40))
    assert found.overrides[found.overrides.index("--stages.0.micro-batches") :][:2] == ("--stages.0.micro-batches", "8")


def test_what_does_not_help_is_not_suggested(run):
    found = fit(run, 900, (1000, 1000), lambda run, index: 1000)
    assert (found.fits, found.overrides, found.then) == (False, (), (1000, 1000))


def test_what_is_done_already_is_not_tried(run):
    tried = []

    def watched(run, index):
        tried.append(run)
        return need(run, index)

    run = replace(run, mesh=MeshShape(data=1, fsdp=8), remat="layers")
    assert fit(run, 220, (need(run, 0), need(run, 1)), watched).overrides == (
        *("--stages.0.micro-batches", "2"),
        *("--stages.1.micro-batches", "2"),
    )
    assert all(run.mesh == MeshShape(data=1, fsdp=8) and run.remat == "layers" for run in tried)


def test_a_stage_that_cannot_be_compiled_again(run):
    """The changes that it would share are given up, and those of the other stage alone are found."""

    def failing(run, index):
        if index == 0:
            raise JclipError("the compiler's process failed")
        return need(run, index)

    found = fit(run, 1100, NEEDS, failing)
    assert found.fits and found.overrides == ("--stages.1.micro-batches", "2") and found.then == (1040, 1040)
    assert f"could not be compiled with {' '.join(SPLIT)}: the compiler's process failed" in found.dropped
    assert fit(run, 1100, NEEDS, need).dropped == ""


def test_by_the_compiler(chinese_clip):
    """The suggested options give a run that needs the predicted memory, which is less than before."""
    stage = replace(chinese_clip.stages[1], batch_size=256)
    run = replace(chinese_clip, stages=(stage,))
    needs = (compiled_need(run, 0),)
    found = fit(run, int(0.8 * needs[0]), needs)
    assert found.fits and found.overrides
    assert found.then[0] <= 0.8 * needs[0]


def test_the_words_are_those_of_the_command_line(run):
    words = fit(run, 140, NEEDS, need).overrides
    _, changed = parse(PlanOptions, [CONFIG, *words], "plan")
    assert (changed.mesh, changed.remat) == (MeshShape(data=1, fsdp=8), "layers")
    assert [stage.micro_batches for stage in changed.stages] == [4, 8]
    assert [need(changed, index) for index in (0, 1)] == [115, 140]
