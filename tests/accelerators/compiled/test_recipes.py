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
MOST = {"v5e:2x2": 1.05, "h100:4": 1.3}
"""Products of a compiled step over those of its jaxpr, at most. A device has two pairs, and NVIDIA's compiler pads
products with fewer than 8 rows. All devices along "tensor" compute the patches and the projections: 1.11 times."""
GATHER = "all-gather"
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
    assert stage.plan.device_state_bytes < result.needed < 2**27
    found = account(result.text)
    most = MOST[place] * (1.11 if run.mesh.tensor > 1 else 1)
    assert 0.94 < found.products / (stage.plan.flops_per_step / 4) < most and found.traffic > 0
    time = estimate(found, process.place)
    assert 0 < time.seconds < 0.1 and 0 <= time.utilisation < 1
    return stage, found


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("recipe", RECIPES)
@on_both
def test_every_stage(place, recipe, index, runs, processes):
    """A device sends at least a byte for each trained parameter, whose gradients are summed."""
    stage, found = compiled(processes, place, runs(recipe), index)
    assert found.by_kind()["all-reduce"].wire > stage.plan.trainable


def arguments(compiler, run, own_memory):
    """Returns the bytes of the first stage's arguments on one device, and those that the compiled step has."""
    devices = devices_of(run, compiler.devices)
    assert devices.own_memory
    part = assemble(run, 0, replace(devices, own_memory=own_memory))
    return argument_bytes(part), compiler.compile(lower_step(part)).arguments


@pytest.mark.parametrize(
    ("place", "recipe"), [at("v5e:2x2", "v5e:2x2", "chinese_clip/vit_b_16"), at("h100:4", "h100:4", "altclip/vit_l_14")]
)
def test_frozen_parameters_are_in_the_hosts_memory(place, recipe, runs, processes):
    """The image tower is on the devices in bfloat16, or not at all in AltCLIP's first stage."""
    (before, had), (now, has) = (processes(place).call(arguments, runs(recipe), own) for own in (False, True))
    image = processes(place).call(assemble_stage, runs(recipe), 0).plan.host_bytes
    assert before - now > (0.9 if recipe.startswith("altclip") else 0.4) * image
    assert had - has > 0.9 * (before - now)  # TPUs pad arguments


@pytest.mark.parametrize(
    ("form", "kinds"), [("dense", {GATHER}), ("chunked", {GATHER, "all-to-all"}), ("ring", {"collective-permute"})]
)
@on_both
def test_every_form_of_the_loss(place, form, kinds, runs, processes):
    """Nothing but the loss gathers, sends or permutes, because the parameters are on every device."""
    run = runs("chinese_clip/vit_b_16")
    last = run.stages[-1]
    objective = replace(last.objective, loss=ContrastiveLoss(form))
    _, found = compiled(processes, place, replace(run, stages=(replace(last, objective=objective),)), 0)
    assert found.by_kind().keys() - {"all-reduce", "reduce-scatter"} == kinds


@pytest.mark.parametrize(
    "mesh", [MeshShape(data=1, fsdp=4), MeshShape(data=2, tensor=2), MeshShape(data=1, fsdp=2, tensor=2)]
)
@on_both
def test_every_axis_of_the_mesh(place, mesh, runs, processes):
    """Matrices are gathered for "fsdp". For "tensor", states are summed twice in each layer and pass, one by one."""
    run = runs("chinese_clip/vit_b_16", mesh=mesh, max_replicated=1.0)
    stage, found = compiled(processes, place, run, 1)
    assert stage.plan.device_state_bytes < stage.plan.state_bytes
    kinds = found.by_kind()
    assert mesh.fsdp == 1 or GATHER in kinds
    layers = max(run.model.image.layers, run.model.text.layers)  # sums of both towers may be combined
    assert mesh.tensor == 1 or kinds["all-reduce"].executions >= 2 * 2 * layers


@pytest.mark.parametrize(("index", "mesh"), [(0, MeshShape()), (1, MeshShape()), (1, MeshShape(data=1, fsdp=4))])
@on_both
def test_a_resnet(place, index, mesh, runs, processes):
    _, found = compiled(processes, place, runs("chinese_clip/rn50", mesh=mesh, max_replicated=1.0), index)
    assert (GATHER in found.by_kind()) == (mesh.fsdp > 1)
