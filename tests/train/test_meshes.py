"""One run on meshes of every shape: the same numbers, parameters really split, and a checkpoint that fits them all."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jclip import rules
from jclip.bundle import load_bundle
from jclip.data.text import load_tokenizer
from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.stages import Budget
from jclip.train.assembly import StageParts
from jclip.train.loop import train
from tests.train.runs import leaves, losses

STEPS = 3
MESHES = {
    "data=8": MeshShape(),
    "data=4 x fsdp=2": MeshShape(fsdp=2),
    "fsdp=8": MeshShape(data=1, fsdp=8),
}
TENSOR = (("text/layers/mlp/.*/kernel", "-,-,tensor"), (".*", "fsdp"))


def smooth(run, steps=STEPS):
    """The run in float32 at a rate that moves the parameters.

    Epsilon stands above the gradients' rounding errors: Adam divides by a gradient's size, and would blow them up to a
    whole step where a gradient is about zero.
    """
    stages = tuple(
        replace(
            stage,
            budget=Budget(steps=steps),
            optimizer=replace(stage.optimizer, learning_rate=1e-2, warmup_steps=0, schedule="constant", eps=1e-3),
        )
        for stage in run.stages
    )
    return replace(run, dtype="float32", stages=stages)


@pytest.fixture
def one_stage(recipe):
    """The first stage of each recipe: teacher learning, and the ring's contrastive loss."""
    return smooth(replace(recipe, stages=recipe.stages[:1]))


def on_one_device(run):
    """Losses and parameters after the run's steps, made by the parts that the loop uses."""
    mesh = make_mesh(devices=jax.devices()[:1])
    teacher = load_bundle(run.teacher.bundle) if run.teacher else None
    part = StageParts(run, 0, mesh, load_tokenizer(run.tokenizer), teacher)
    found, key = [], jax.random.fold_in(jax.random.key(run.seed), 0)
    with jax.set_mesh(mesh):
        state, step, constants = part.start(), part.compiled, part.constants()
        for number in range(STEPS):
            batch = part.place(part.batches[number])
            state, metrics = step(state, constants, batch, jax.random.fold_in(key, number))
            found.append(float(metrics["loss"]))
    return found, {**rules.paths_of(state.trainable), **rules.paths_of(state.frozen)}


def test_every_mesh_trains_the_same(one_stage, tmp_path):
    expected, alone = on_one_device(one_stage)
    for name, shape in MESHES.items():
        run = replace(one_stage, mesh=shape)
        bundle = train(run, tmp_path / name).bundles[0]
        np.testing.assert_allclose([loss for _, loss in losses(tmp_path / name)], expected, rtol=2e-5, err_msg=name)
        for path, leaf in leaves(bundle).items():
            np.testing.assert_allclose(leaf, alone[path], rtol=1e-4, atol=2e-5, err_msg=f"{name}: {path}")


def test_parameters_slots_and_teacher_are_split(one_stage):
    shape = MESHES["data=4 x fsdp=2"]
    mesh = make_mesh(shape)
    teacher = load_bundle(one_stage.teacher.bundle) if one_stage.teacher else None
    part = StageParts(one_stage, 0, mesh, load_tokenizer(one_stage.tokenizer), teacher)
    with jax.set_mesh(mesh):
        state, constants = part.start(), part.constants()
        for _ in range(2):  # as created, and as a step leaves it
            for tree in (state.trainable, state.slots, *([constants] if teacher else [])):
                largest = max(jax.tree.leaves(tree), key=lambda leaf: leaf.size)
                assert "fsdp" in largest.sharding.spec
                shards = {shard.data.size for shard in largest.addressable_shards}
                assert shards == {largest.size // shape.fsdp}
            frozen = max(jax.tree.leaves(state.frozen), key=lambda leaf: leaf.size)
            assert "fsdp" in frozen.sharding.spec
            key = jax.random.key(0)
            state, _ = part.compiled(state, constants, part.place(part.batches[0]), key)


def test_a_checkpoint_of_one_mesh_resumes_on_another(chinese_clip, tmp_path):
    run = smooth(chinese_clip, 2)
    whole = train(run, tmp_path / "whole")
    meshes = [MESHES["fsdp=8"], MESHES["data=4 x fsdp=2"], MeshShape(data=4, tensor=2)]
    for stop, shape in zip((1, 3, None), meshes, strict=True):
        moved = replace(run, mesh=shape, sharding=TENSOR if shape.tensor > 1 else run.sharding)
        outcome = train(moved, tmp_path / "moved", stop_after=stop)
    assert outcome.finished
    for (_, ours), (_, theirs) in zip(losses(tmp_path / "moved"), losses(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=5e-5)
    start, end = (leaves(whole.bundles[i]) for i in (0, 1))
    assert any(np.abs(end[path] - start[path]).max() > 1e-3 for path in end)
    for path, leaf in end.items():
        np.testing.assert_allclose(leaves(outcome.bundles[-1])[path], leaf, rtol=1e-4, atol=5e-5, err_msg=path)


def test_a_tensor_axis_without_a_rule_is_refused(chinese_clip, tmp_path):
    with pytest.raises(JclipError, match="a mesh with tensor=2 needs sharding rules that use the axis"):
        train(replace(chinese_clip, mesh=MeshShape(tensor=2)), tmp_path / "run")


def test_a_misspelt_sharding_rule_is_refused(chinese_clip, tmp_path):
    with pytest.raises(JclipError, match="sharding: rule 'txet/.*' matches no parameter"):
        train(replace(chinese_clip, sharding=(("txet/.*", "copy"), (".*", "fsdp"))), tmp_path / "run")
    assert not (tmp_path / "run").exists()
