"""Runs on meshes of every shape: equal numbers, parameters and work that are really split, and portable checkpoints."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.configs.loading import load_config
from jclip.errors import JclipError
from jclip.models import transformer, zoo
from jclip.models.bert import BertConfig
from jclip.models.build import shapes
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import batch_sharding, on_mesh, param_shardings
from jclip.parallel.tables import rules_for
from jclip.stages import Budget
from jclip.train.loop import train
from jclip.train.planning.reduced import reduce
from jclip.train.state import whole_params
from tests.train.assembled import assembled, shapes_of
from tests.train.runs import leaves, losses

CONFIGS = Path(__file__).parents[2] / "configs"
DATA, FSDP, TENSOR = MeshShape(), MeshShape(fsdp=2), MeshShape(fsdp=2, tensor=2)
MESHES = {"8": DATA, "4 x 2": FSDP, "2 x 2 x 2": TENSOR}

FAMILIES = {
    "vit-bert": ("chinese_clip/vit_b_16.py", "chinese-clip-vit-b-16", "everything"),
    "rn50-bert": ("chinese_clip/vit_b_16.py", "chinese-clip-rn50", "everything"),  # its batch norm trains
    "vit-clip": ("chinese_clip/vit_b_16.py", "clip-vit-b-16", "everything"),
    "vit-xlmr": ("altclip/vit_l_14.py", "altclip", "contrastive"),
    "xlmr-taught": ("altclip/vit_l_14.py", "altclip", "teacher"),
}
LOSSES, PARAMETERS, RESNET = 2e-6, 5e-6, 2e-4
"""Tolerances after 20 steps, relative for losses and absolute for parameters. In a ResNet, a ReLU whose input is about
zero may open on one mesh only; its channel then gets another gradient. Most channels differ by 1e-6."""


def smooth(run, steps):
    """Returns the run in float32, at a rate that changes the loss but opens or closes few of a ResNet's ReLUs.

    Epsilon is larger than the gradients' rounding errors, which Adam would otherwise enlarge to a whole step where a
    gradient is about zero.
    """
    rate = 2e-4 if isinstance(run.model.image, ResNetConfig) else 2e-3
    stages = tuple(
        replace(
            stage,
            budget=Budget(steps=steps),
            optimizer=replace(stage.optimizer, learning_rate=rate, warmup_steps=0, schedule="constant", eps=1e-2),
        )
        for stage in run.stages
    )
    return replace(run, dtype="float32", stages=stages)


@pytest.fixture
def family(request, tmp_path):
    """One stage with the small towers of a family, and the tolerance for its parameters."""
    config, model, name = FAMILIES[request.param]
    run = reduce(replace(load_config(str(CONFIGS / config)), model=zoo.get_config(model)), tmp_path / "inputs")
    stages = tuple(stage for stage in run.stages if stage.name == name)
    return replace(run, stages=stages), RESNET if request.param.startswith("rn50") else PARAMETERS


def trained(run, shape, steps, devices=None):
    """Returns losses and parameters, with batch statistics, after `steps` steps of the parts that the loop uses."""
    part = assembled(replace(smooth(run, steps), mesh=shape), devices=devices)
    found, key, batches = [], jax.random.key(run.seed), part.open_batches()
    with jax.set_mesh(part.mesh):
        state, constants, batch = part.start(), part.constants(), part.place(batches[0])
        lowered = part.compiled.lower(state, constants, batch, key)
        # The same partitioning with fewer optimisations: half the time for the same numbers.
        step = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
        for number in range(steps):
            state, metrics = step(state, constants, part.place(batches[number]), jax.random.fold_in(key, number))
            found.append(float(metrics["loss"]))
        if shape == TENSOR:
            assert_split(state)
        return found, rules.paths_of({**jax.device_get(whole_params(state)), "stats": jax.device_get(state.stats)})


def assert_split(state, *more):
    """The large arrays lie in parts on the 2 x 2 x 2 mesh, the largest in four."""
    for tree in (state.trainable, state.frozen, state.slots, *more):
        large = [leaf for leaf in jax.tree.leaves(tree) if leaf.size >= 64 * 64]
        assert large or not jax.tree.leaves(tree)
        assert {leaf.size // leaf.addressable_shards[0].data.size for leaf in large} <= {2, 4}
        for largest in sorted(large, key=lambda leaf: leaf.size)[-1:]:
            assert {shard.data.size for shard in largest.addressable_shards} == {largest.size // 4}


def compare(run, tolerance, steps, meshes):
    expected, alone = trained(run, DATA, steps, devices=1)
    assert abs(expected[-1] - expected[0]) > 1e-3, "there is something to get wrong"
    for name in meshes:
        found, together = trained(run, MESHES[name], steps)
        np.testing.assert_allclose(found, expected, rtol=LOSSES, err_msg=name)
        for path, leaf in together.items():
            np.testing.assert_allclose(leaf, alone[path], rtol=0, atol=tolerance, err_msg=f"{name}: {path}")


@pytest.mark.parametrize("family", ["vit-clip"], indirect=True)
def test_three_axes_train_as_one_device(family):
    compare(*family, steps=3, meshes=["2 x 2 x 2"])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_every_mesh_trains_the_same(family):
    compare(*family, steps=20, meshes=MESHES)


def test_parameters_slots_and_teacher_are_split(recipe):
    """Checks them as created; `trained` checks them after a step."""
    part = assembled(replace(recipe, stages=recipe.stages[:1], mesh=TENSOR))
    with jax.set_mesh(part.mesh):
        state, constants = part.start(), part.constants()
        assert state.trainable and state.frozen
        assert_split(state, constants)


def test_tensor_parallel_layers_share_their_work(monkeypatch):
    """Twice the devices along tensor: a device has half the arithmetic, less memory, and never a whole matrix."""
    monkeypatch.setattr(transformer, "SHALLOW", 0)  # the layers are scanned, as those of deep towers are
    width, hidden, heads = 128, 512, 4
    text = BertConfig(100, width, 2, heads, hidden, 64, 2, 0, 1e-12, dropout=0.0)
    model = DualEncoderConfig(VitConfig(32, 16, width, 2, heads), text, 64)
    alone, shared = (compiled_gradient(model, MeshShape(2, 2, tensor), tensor) for tensor in (1, 2))
    assert alone.cost_analysis()["flops"] / shared.cost_analysis()["flops"] == pytest.approx(2, rel=0.1)
    assert shared.memory_analysis().temp_size_in_bytes < 0.7 * alone.memory_analysis().temp_size_in_bytes
    whole, halves = ({(width, width), (width, hidden), (hidden, width)}, {(width, width // 2), (width, hidden // 2)})
    assert whole <= gathered(alone)  # over fsdp, layer by layer
    assert not whole & gathered(shared) and halves <= gathered(shared)
    # In each layer, only the outputs of attention and perceptron are summed over the devices.
    in_the_layers = re.findall(r"while/body\S*/(attention/output|mlp/fc2)/dot_general", reduced(shared))
    assert sorted(set(in_the_layers)) == ["attention/output", "mlp/fc2"]


def compiled_gradient(model, shape, tensor):
    """Compiles the gradient of the text tower on a batch of 16."""
    mesh = make_mesh(shape, jax.devices()[: 4 * tensor])
    params = shapes(model)["params"]
    places = param_shardings(params, mesh, rules_for(model, mesh))

    def loss(params, ids):
        return jnp.square(DualEncoder(model).apply({"params": params}, ids, method="encode_text")).mean()

    with jax.set_mesh(mesh):
        ids = jax.ShapeDtypeStruct((16, 32), jnp.int32, sharding=batch_sharding(mesh))
        step = jax.jit(jax.grad(loss), out_shardings=places)
        return step.lower(on_mesh(params, places), ids).compile()


def gathered(compiled):
    """Returns the shapes of the matrices that are all-gathered."""
    found = re.findall(r"= f32\[(\d+),(\d+)\]\S* all-gather\(", compiled.as_text())
    return {(int(rows), int(columns)) for rows, columns in found}


def reduced(compiled):
    """Returns the lines with an all-reduce of arrays that have the shape of states."""
    return "\n".join(re.findall(r"= f32\[4,32,128\]\S* all-reduce\(.*", compiled.as_text()))


@pytest.mark.slow  # test_extension.py moves a smaller run
def test_a_checkpoint_of_one_mesh_resumes_on_another(chinese_clip, tmp_path):
    run = smooth(replace(chinese_clip, stages=chinese_clip.stages[1:], mesh=TENSOR), 3)
    whole = train(run, tmp_path / "whole")
    for stop, shape in ((1, MeshShape(data=1, fsdp=8)), (None, TENSOR)):
        outcome = train(replace(run, mesh=shape), tmp_path / "moved", stop_after=stop)
    assert outcome.finished
    for (_, ours), (_, theirs) in zip(losses(tmp_path / "moved"), losses(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=LOSSES)
    end = leaves(whole.bundles[-1])
    for path, leaf in end.items():
        np.testing.assert_allclose(leaves(outcome.bundles[-1])[path], leaf, rtol=0, atol=PARAMETERS, err_msg=path)


def test_layers_that_are_frozen_apart_lie_as_the_others(chinese_clip):
    stage = replace(chinese_clip.stages[1], last_layers=(("image", 1),))
    part = shapes_of(replace(chinese_clip, stages=(stage,), mesh=TENSOR))
    first, last = part.shardings.frozen["image"]["first_layers"], part.shardings.trainable["image"]["layers"]
    assert first == last
    assert first["mlp"]["fc1"]["kernel"].spec == jax.P(None, "fsdp", "tensor")


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (MeshShape(data=1, fsdp=2, tensor=4), r"replicates \d+% of the parameters, above max_replicated=0.05 \(image/"),
        (MeshShape(data=3), "a mesh of data=3 x fsdp=1 x tensor=1 does not fit 8 devices"),
    ],
)
def test_what_does_not_fit_is_refused(chinese_clip, tmp_path, mesh, message):
    """In the first case, the two heads of these small towers are not divisible by 4."""
    with pytest.raises(JclipError, match=message):
        train(replace(chinese_clip, mesh=mesh), tmp_path / "run")
    assert not (tmp_path / "run").exists()
