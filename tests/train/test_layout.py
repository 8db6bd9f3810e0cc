"""Stages that train only the last layers of a tower: split stacks, arithmetic and memory saved, and a whole run."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.errors import JclipError
from jclip.models.resnet import ResNetConfig
from jclip.parallel.mesh import MeshShape
from jclip.train.checks import check
from jclip.train.layout import Layout, joined
from jclip.train.loop import train
from jclip.train.planning.flops import count_flops
from jclip.train.state import whole_params
from tests.train.assembled import assembled, first_inputs, shapes_of
from tests.train.runs import assert_same_bundles, losses

TOP_OF_IMAGE = ((r"image/(layers|post_norm|projection)/.*|text/.*|logit_scale", True), (r".*", False))


def stages(run, *changes):
    """Returns the run with a copy of its second stage for each dictionary of changes, at a high learning rate."""
    stage = run.stages[-1]
    optimizer = replace(stage.optimizer, learning_rate=1e-2, warmup_steps=0, schedule="constant", eps=1e-3)
    made = tuple(
        replace(stage, **{"name": f"s{i}", "optimizer": optimizer, **change}) for i, change in enumerate(changes)
    )
    return replace(run, stages=made, dtype="float32")


def deep(run, layers=3):
    """Returns the run with more layers in both towers."""
    model, name = run.model, "layers" if hasattr(run.model.image, "layers") else "depth"
    image, text = replace(model.image, **{name: layers}), replace(model.text, **{name: layers})
    return replace(run, model=replace(model, image=image, text=text))


def params_of(state):
    return rules.paths_of(jax.device_get(whole_params(state)))


def moved_layers(before, after, path):
    """Returns which layers of a stack differ."""
    return [not np.array_equal(one, other) for one, other in zip(before[path], after[path], strict=True)]


def test_cut_and_joined_are_inverse():
    stack = {"kernel": jnp.arange(12.0).reshape(4, 3)}
    params = {"image": {"layers": stack, "patch": jnp.ones(2)}, "text": {"layers": stack}, "logit_scale": jnp.ones(())}
    held = Layout(frozenset(), first_layers=(3, 0)).held(params)
    assert held["image"]["first_layers"]["kernel"].shape == (3, 3)
    assert held["image"]["layers"]["kernel"].tolist() == [[9, 10, 11]]
    assert held["text"]["layers"]["kernel"] is stack["kernel"]  # not copied
    back = joined(held)
    assert back["image"].keys() == {"layers", "patch"}
    np.testing.assert_array_equal(back["image"]["layers"]["kernel"], stack["kernel"])


REAL = ("mlp/fc1/kernel", "attention/query/kernel")


@pytest.mark.parametrize(
    ("name", "shape", "kernels", "first"),
    [
        ("toy_run", MeshShape(data=4, fsdp=2), ("kernel",), "image/input/kernel"),
        pytest.param("chinese_clip", MeshShape(), REAL, "image/class_embedding", marks=pytest.mark.slow),
        pytest.param("chinese_clip", MeshShape(data=4, fsdp=2), REAL, "image/class_embedding", marks=pytest.mark.slow),
    ],
)
def test_only_the_last_layers_move_and_as_in_a_stage_that_trains_all(request, name, shape, kernels, first):
    """Trains the last one of three layers of the image tower, and the last two of the text tower."""
    chosen = request.getfixturevalue(name)
    changes = ({"trains": ((".*", True),)}, {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1), ("text", 2))})
    runs, found = [replace(deep(stages(chosen, change)), mesh=shape) for change in changes], []
    for run in runs:
        part = assembled(run)
        with jax.set_mesh(part.mesh):
            state, constants, batch = first_inputs(part)
            start = params_of(state)
            state, _ = part.compiled(state, constants, batch, jax.random.key(0))
            found.append(params_of(state))
        for tree, at in zip(state, part.shardings, strict=True):
            for leaf, place in zip(jax.tree.leaves(tree), jax.tree.leaves(at), strict=True):
                assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    everything, last = found
    for path in start:
        if path.startswith("image/layers/"):
            assert moved_layers(start, last, path) == [False, False, True], path
    np.testing.assert_array_equal(last[first], start[first])
    kernel = f"image/layers/{kernels[0]}"
    np.testing.assert_allclose(last[kernel][-1], everything[kernel][-1], atol=1e-6)
    for path in (f"text/layers/{kernel}" for kernel in kernels):
        assert moved_layers(start, last, path) == [False, True, True]
        np.testing.assert_allclose(last[path][1:], everything[path][1:], atol=1e-6)
    # The next stage goes on with the same values.
    with jax.set_mesh(part.mesh):
        for path, leaf in params_of(shapes_of(runs[0]).follow(state)).items():
            np.testing.assert_array_equal(leaf, last[path], err_msg=path)
    if shape.fsdp > 1:
        held = rules.paths_of(state.frozen)[f"image/first_layers/{kernels[0]}"]
        assert held.shape[0] == 2 and "fsdp" in held.sharding.spec
        assert {shard.data.size for shard in held.addressable_shards} == {held.size // 2}


def test_only_the_last_layers_have_slots(chinese_clip):
    """There is a slot for each moment of each trained parameter, and none for others."""
    changes = [{"trains": TOP_OF_IMAGE, "last_layers": (("image", layers),)} for layers in (1, 2, 3)]
    run = deep(stages(chinese_clip, *changes))
    for index, layers in enumerate((1, 2, 3)):
        shapes = shapes_of(run, index).state_shapes
        assert shapes.trainable["image"]["layers"]["mlp"]["fc1"]["kernel"].shape[0] == layers
        moments = [leaf.size for leaf in jax.tree.leaves(shapes.slots) if leaf.dtype == jnp.float32]
        assert sum(moments) == 2 * sum(leaf.size for leaf in jax.tree.leaves(shapes.trainable))


def test_no_backward_pass_through_frozen_layers(chinese_clip):
    """Training one layer more costs exactly two forward passes of a layer."""
    top = ((r"image/(layers|post_norm|projection)/.*", True), (r".*", False))
    run = stages(chinese_clip, *({"trains": top, "last_layers": (("image", n),)} for n in (1, 2, 4)), {"trains": top})
    parts = [shapes_of(replace(deep(run, 4), remat="none"), index) for index in range(4)]

    def flops(part):
        with jax.set_mesh(part.mesh):
            arguments = part.state_shapes, {}, part.program.batch, jax.random.key(0)
            return count_flops(part.step, *arguments)

    one, two, four, all_ = (flops(part) for part in parts)
    config, batch = parts[0].run.model.image, parts[0].stage.batch_size
    tokens, width = config.patches + 1, config.width
    layer = batch * 2 * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    assert two - one == 2 * layer
    assert four == all_ == one + 6 * layer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last_layers": (("imgae", 1),)}, "last_layers names 'imgae': name image, text, or both"),
        ({"last_layers": (("image", 1), ("image", 2))}, "last_layers names 'image' twice"),
        ({"last_layers": (("image", 0),)}, "the image tower has 2 layers, not 0: give 1 to 2"),
        ({"last_layers": (("text", 3),)}, "the text tower has 2 layers, not 3: give 1 to 2"),
        (
            {"last_layers": (("image", 1),), "trains": (("image/.*", False), (".*", True))},
            "`trains` freezes all its layers: let them train",
        ),
    ],
)
def test_impossible_last_layers_are_refused(chinese_clip, change, message):
    with pytest.raises(JclipError, match=f"stage 's0': {message}|{message}"):
        check(stages(chinese_clip, change))


def test_the_last_layers_of_a_resnet_are_refused(chinese_clip):
    resnet = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4)
    run = replace(chinese_clip, model=replace(chinese_clip.model, image=resnet))
    with pytest.raises(
        JclipError, match="the image tower has no stack of equal layers, but blocks with names of their own"
    ):
        check(stages(run, {"last_layers": (("image", 1),)}))


@pytest.mark.slow
def test_a_run_with_last_layers_resumes_to_the_bit(chinese_clip, tmp_path):
    run = stages(chinese_clip, {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1),)})
    whole = train(run, tmp_path / "whole")
    for stop in (1, None):
        parts = train(run, tmp_path / "parts", stop_after=stop)
    assert parts.finished
    assert_same_bundles(parts.bundles, whole.bundles)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
