"""The modified ResNet against cn_clip's, with frozen batch statistics and in training."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cn_clip.clip.model import ModifiedResNet

from jclip.errors import JclipError
from jclip.models.compute import Compute
from jclip.models.resnet import AttentionPool, BatchNorm, Bottleneck, ResNet, ResNetConfig
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import batch_sharding, replicated
from tests.models.parity import (
    assert_same_rows,
    assert_same_tree,
    random_images,
    random_variables,
    run,
    to_torch,
    unit,
)
from tests.models.torch_weights import Weights, openai_resnet, randomise

RN50 = ResNetConfig(image_size=64, width=4, heads=4)  # the real depth
TINY = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=4, heads=2)
SHALLOW = ResNetConfig(image_size=64, layers=(1, 2, 1, 1), width=6, heads=3)


def reference_of(config: ResNetConfig, embed_dim: int):
    theirs = ModifiedResNet(config.layers, embed_dim, config.heads, config.image_size, config.width)
    return randomise(theirs)


def variables_of(reference):
    weights = Weights(reference)
    params, stats = openai_resnet(weights)
    return weights, {"params": params, "batch_stats": stats}


@pytest.mark.parametrize("config", [pytest.param(RN50, marks=pytest.mark.slow), SHALLOW], ids=["rn50", "shallow"])
def test_frozen_statistics(config):
    reference = reference_of(config, 13)
    weights, variables = variables_of(reference)
    images = random_images(3, config.image_size)
    shapes = jax.eval_shape(lambda: ResNet(config, 13).init(jax.random.key(0), images))
    assert_same_tree(weights, variables, shapes)
    ours, moved = run(ResNet(config, 13), variables, images, mutable="batch_stats")
    assert_same_rows(ours, reference(to_torch(images)))
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], variables["batch_stats"])


def test_training_uses_the_batch_and_moves_the_running_statistics():
    reference = reference_of(SHALLOW, 13).train()
    _, variables = variables_of(reference)
    for step in range(3):
        images = random_images(5, SHALLOW.image_size, seed=step) * (step + 1) + step
        theirs = reference(to_torch(images))
        ours, moved = run(ResNet(SHALLOW, 13), variables, images, train=True, mutable="batch_stats")
        assert_same_rows(ours, theirs)
        before, variables = variables, {**variables, **moved}
        assert np.abs(_flat(moved["batch_stats"]) - _flat(before["batch_stats"])).max() > 0.01
    _, expected = variables_of(reference)
    np.testing.assert_allclose(_flat(variables["batch_stats"]), _flat(expected["batch_stats"]), rtol=1e-4, atol=1e-5)


def test_batch_norm_by_hand():
    # Values 1 and 3: mean 2, variance 1, unbiased variance 2.
    x = jnp.array([[1.0], [3.0]])
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    out, moved = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out, [[-1], [1]], rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], [0.1 * 2], rtol=1e-6)
    np.testing.assert_allclose(moved["batch_stats"]["var"], [0.9 * 1 + 0.1 * 2], rtol=1e-6)
    np.testing.assert_allclose(BatchNorm().apply(variables, x, train=False), x, rtol=1e-5)


def test_a_block_begins_as_its_shortcut():
    x = jnp.asarray(random_images(1, 4).reshape(1, 4, 1, 12))
    made = jax.jit(functools.partial(Bottleneck(3, 1, jnp.float32).init_with_output, train=False))
    out, variables = made(jax.random.key(0), x)
    np.testing.assert_array_equal(out, nn.relu(x))
    np.testing.assert_array_equal(variables["params"]["norm_3"]["scale"], 0)


def test_initialisation_of_the_pool():
    x = jnp.ones((1, 2, 2, 128))
    params = jax.jit(AttentionPool(4, 64, Compute()).init)(jax.random.key(0), x)["params"]
    for leaf in (params["attention"]["query"]["kernel"], params["attention"]["output"]["kernel"]):
        np.testing.assert_allclose(leaf.std(), 128**-0.5, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of 32"),
        ({"layers": (1, 1)}, "four stages"),
        ({"heads": 7}, "7 heads do not divide a width of 192"),
    ],
)
def test_a_wrong_configuration_says_so(change, message):
    with pytest.raises(JclipError, match=message):
        replace(SHALLOW, **change)


def _flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_a_training_batch_is_the_global_one_on_a_mesh():
    """Each of 8 devices has 2 images of different colours; the statistics are those of all 16, as in PyTorch."""
    reference = reference_of(TINY, 13).train()
    _, variables = variables_of(reference)
    images = random_images(16, TINY.image_size) + np.arange(16, dtype=np.float32)[:, None, None, None]
    mesh = make_mesh(MeshShape(data=4, fsdp=2))
    train = functools.partial(ResNet(TINY, 13).apply, train=True, mutable="batch_stats")
    with jax.set_mesh(mesh):
        split, moved = jax.jit(train, in_shardings=(replicated(mesh), batch_sharding(mesh)))(variables, images)
    assert len(split.sharding.device_set) == 8
    assert_same_rows(split, reference(to_torch(images)), atol=1e-5)
    _, expected = variables_of(reference)
    np.testing.assert_allclose(_flat(moved["batch_stats"]), _flat(expected["batch_stats"]), rtol=1e-4, atol=1e-5)
    # The statistics of two images alone differ.
    alone = reference(to_torch(images[:2])).detach().numpy()
    assert np.abs(unit(split[:2]) - unit(alone)).max() > 0.01


class TrainingBlock(nn.Module):
    @nn.compact
    def __call__(self, x_bhwc):
        return Bottleneck(3, 2, jnp.float32)(x_bhwc, True)


@pytest.mark.slow
def test_gradients_through_global_statistics():
    """Through batch norm, one device's images affect the gradients of another's."""
    block = TrainingBlock()
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 6)).astype(np.float32)
    variables = random_variables(block, x)

    def loss(params, x):
        out, _ = block.apply({**variables, "params": params}, x, mutable="batch_stats")
        return jnp.square(out - 0.1).sum()

    mesh = make_mesh()
    alone = jax.jit(jax.grad(loss))(variables["params"], x)
    with jax.set_mesh(mesh):
        on_mesh = jax.jit(jax.grad(loss), in_shardings=(replicated(mesh), batch_sharding(mesh)))
        split = on_mesh(variables["params"], x)
    largest = np.abs(_flat(alone)).max()
    np.testing.assert_allclose(_flat(split), _flat(alone), atol=1e-5 * largest)
