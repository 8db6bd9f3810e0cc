"""Sharding constraints on activations: none without a mesh, the batch's axes on one, and correct numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jclip.models.spread import by_example, gathered, gathered_along, rows_of
from jclip.models.transformer import Mlp
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import param_shardings

SHAPES = [MeshShape(data=2, fsdp=2, tensor=2), MeshShape(data=4, tensor=2), MeshShape(data=1, fsdp=4, tensor=2)]
RULES = (("fc1/kernel", "fsdp,tensor"), ("fc2/kernel", "tensor,fsdp"), (".*", "fsdp"))


def test_nothing_without_a_mesh():
    x = jnp.ones((3, 2))
    assert by_example(x) is x and gathered(x) is x and gathered_along(x, 0) is x
    assert "sharding" not in str(jax.make_jaxpr(by_example)(x))


def test_the_batch_is_split_and_nothing_else():
    mesh = make_mesh(SHAPES[0])
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.ones((8, 6)), NamedSharding(mesh, P(None, "tensor")))
        assert jax.jit(by_example)(x).sharding.is_equivalent_to(NamedSharding(mesh, P(("data", "fsdp"))), 2)
        odd = jnp.ones((6, 6))
        assert "sharding" not in str(jax.make_jaxpr(by_example)(odd)), "6 rows are not split over 4 devices"


def test_nothing_within_a_device_of_shard_map():
    mesh = make_mesh(SHAPES[0])
    with jax.set_mesh(mesh):
        doubled = jax.shard_map(
            lambda x: 2 * by_example(x), mesh=mesh, in_specs=P(("data", "fsdp")), out_specs=P(("data", "fsdp"))
        )
        np.testing.assert_array_equal(jax.jit(doubled)(jnp.ones((8, 6))), 2 * np.ones((8, 6)))


@pytest.mark.parametrize("times", [1, 4], ids=["larger than a device's rows", "smaller"])
@pytest.mark.parametrize("split", [P("fsdp", "tensor"), P(("tensor", "fsdp")), P(None, "fsdp")], ids=str)
def test_rows_of_a_split_table(split, times):
    """The rows and the gradient of the table are those of a whole table; an id outside it gives NaN."""
    table, ids = jnp.arange(48.0).reshape(12, 4), jnp.array([[0, 11, 3], [3, 3, 5], [1, 2, 12], [7, 8, 9]])
    ids = jnp.tile(ids, (times, 1))

    def loss(table, ids):
        rows = rows_of(table, ids)
        return (jnp.nan_to_num(rows) ** 2).sum(), rows

    (_, whole), expected = jax.value_and_grad(loss, has_aux=True)(table, ids)
    mesh = make_mesh(SHAPES[0])
    with jax.set_mesh(mesh):
        at, rows_at = NamedSharding(mesh, split), NamedSharding(mesh, P(("data", "fsdp")))
        step = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=((None, rows_at), at))
        (_, rows), gradient = step(jax.device_put(table, at), jax.device_put(ids, rows_at))
    np.testing.assert_array_equal(rows, whole)
    np.testing.assert_array_equal(gradient, expected)
    assert np.isnan(rows[2, 2]).all() and np.isnan(rows).sum() == 4 * times


@pytest.mark.parametrize(
    "shape", [SHAPES[0], *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[1:])], ids=str
)
def test_a_pair_of_matrices_in_states_that_are_split_otherwise(shape):
    """Without constraints, and with its neighbours split over tensor, the pair is wrong on 2 x 2 x 2 devices."""
    mlp = Mlp(256, "gelu", nn.initializers.normal(0.1), nn.initializers.normal(0.1))
    x = np.random.default_rng(0).normal(size=(16, 5, 64)).astype(np.float32)
    variables = mlp.init(jax.random.key(0), x)

    def residual(variables, x):
        loss, pull = jax.vjp(lambda v, x: x + mlp.apply(v, x), variables, x)
        return loss, *pull(jnp.sin(loss))

    expected = jax.tree.map(np.asarray, jax.jit(residual)(variables, x))
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        width = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
        places = {"params": param_shardings(variables["params"], mesh, RULES)}
        step = jax.jit(residual, out_shardings=(width, places, width))
        found = step(jax.device_put(variables, places), jax.device_put(x, width))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)
