"""Reduced recipes, compiled by the accelerators' own compilers: every stage, loss form, mesh and kind of tower."""

from dataclasses import replace

import pytest

from jclip.accelerators.account import account
from jclip.accelerators.roofline import estimate
from jclip.configs.loading import load_config
from jclip.losses.contrastive import ContrastiveLoss
from jclip.parallel.mesh import MeshShape
from jclip.train.assembly import assemble, devices_of
from jclip.train.planning.on_target import assemble_stage
from jclip.train.planning.reduced import reduce
from jclip.train.planning.stage_plan import argument_bytes, lower_step
from tests.accelerators.compiled.places import at

pytestmark = pytest.mark.slow
on_both = pytest.mark.parametrize("place", [at("v5e:2x2"), at("h100:4")])
RECIPES = ("altclip/vit_l_14", "chinese_clip/vit_b_16")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns a function: recipe, changes -> the reduced run for 4 devices."""

    def run(recipe, **changes):
        made = reduce(load_config(recipe), tmp_path_factory.mktemp("inputs"), devices=4)
        return replace(made, dtype="bfloat16", **changes)

    return run


def compiled(processes, place, run, index):
    """Compiles a stage, and checks what holds for every step; returns its plan and its account."""
    process = processes(place)
    stage = process.call(assemble_stage, run, index)
    result = stage.compiled
    assert stage.plan.devices == 4 and result.fits and result.seconds > 0
    assert stage.plan.device_state_bytes < result.needed < 2**30
    found = account(result.text)
    assert found.products == pytest.approx(stage.plan.flops_per_step / 4, rel=0.5) and found.traffic > 0
    time = estimate(found, process.place)
    assert 0 < time.seconds < 0.1 and 0 <= time.utilisation < 1
    return stage, found


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("recipe", RECIPES)
@on_both
def test_every_stage(place, recipe, index, runs, processes):
    _, found = compiled(processes, place, runs(recipe), index)
    assert "all-reduce" in found.by_kind() or "reduce-scatter" in found.by_kind()


def arguments(compiler, run, own_memory):
    """Returns the bytes of the first stage's arguments on one device, and those that the compiled step has."""
    devices = devices_of(run, compiler.devices)
    assert devices.own_memory
    part = assemble(run, 0, replace(devices, own_memory=own_memory))
    return argument_bytes(part), compiler.compile(lower_step(part)).arguments


@pytest.mark.parametrize("recipe", RECIPES)
@on_both
def test_frozen_parameters_are_in_the_hosts_memory(place, recipe, runs, processes):
    """The image tower is on the devices in bfloat16, or not at all in AltCLIP's first stage."""
    (before, had), (now, has) = (processes(place).call(arguments, runs(recipe), own) for own in (False, True))
    image = processes(place).call(assemble_stage, runs(recipe), 0).plan.host_bytes
    assert before - now > (0.9 if recipe.startswith("altclip") else 0.4) * image
    assert had - has > 0.9 * (before - now)  # TPUs pad arguments


@pytest.mark.parametrize("form", ["dense", "chunked", "ring"])
@on_both
def test_every_form_of_the_loss(place, form, runs, processes):
    run = runs("chinese_clip/vit_b_16")
    last = run.stages[-1]
    objective = replace(last.objective, loss=ContrastiveLoss(form))
    compiled(processes, place, replace(run, stages=(replace(last, objective=objective),)), 0)


@pytest.mark.parametrize(
    "mesh", [MeshShape(data=1, fsdp=4), MeshShape(data=2, tensor=2), MeshShape(data=1, fsdp=2, tensor=2)]
)
@on_both
def test_every_axis_of_the_mesh(place, mesh, runs, processes):
    run = runs("chinese_clip/vit_b_16", mesh=mesh, max_replicated=1.0)
    stage, found = compiled(processes, place, run, 1)
    assert stage.plan.device_state_bytes < stage.plan.state_bytes
    assert "all-gather" in found.by_kind() or "all-reduce" in found.by_kind()


@on_both
def test_a_resnet(place, runs, processes):
    compiled(processes, place, runs("chinese_clip/rn50"), 1)
