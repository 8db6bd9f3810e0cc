from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.models.derivatives import quick_gelu
from jclip.models.dropout import dropout, row_seeds
from jclip.models.transformer import ACTIVATIONS, LayerNorm, stacked


def test_quick_gelu_by_hand():
    np.testing.assert_allclose(quick_gelu(jnp.array([0.0, 1.0, -1.0])), [0, 0.845796, -0.154204], atol=1e-6)


def test_gelu_is_exact():
    # 1 · Φ(1) = 0.8413447; the tanh approximation gives 0.8411920.
    np.testing.assert_allclose(ACTIVATIONS["gelu"](jnp.array([1.0])), [0.8413447], atol=1e-6)


def test_quick_gelu_is_as_near_as_it_is_said_to_be():
    x = jnp.linspace(-8, 8, 4001)
    worst = np.abs(quick_gelu(x) - ACTIVATIONS["gelu"](x)).max()
    assert 0.02 < worst < 0.021


@pytest.mark.parametrize("epsilon", [1e-5, 1e-12])
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (100.0, 0.1), (-3.0, 1e-4)])
def test_layer_norm_against_float64(epsilon, mean, scale):
    x = (np.random.default_rng(0).normal(size=(3, 65)) * scale + mean).astype(np.float32)
    wide = x.astype(np.float64)
    variance = wide.var(axis=-1, keepdims=True)
    expected = (wide - wide.mean(axis=-1, keepdims=True)) / np.sqrt(variance + epsilon) * 2 + 3
    params = {"params": {"scale": jnp.full(65, 2.0), "bias": jnp.full(65, 3.0)}}
    # At most half a unit in the last place of the input's mean, in standard deviations, may be lost.
    atol = 1e-5 + 2 * abs(mean) * 2**-23 / (scale + epsilon**0.5)
    np.testing.assert_allclose(LayerNorm(epsilon).apply(params, x), expected, atol=atol)


def test_layer_norm_of_bfloat16_is_computed_in_float32():
    x = jax.random.normal(jax.random.key(0), (4, 64)).astype(jnp.bfloat16)
    norm = LayerNorm(1e-12)
    variables = norm.init(jax.random.key(0), x)
    rounded = LayerNorm(1e-12, jnp.bfloat16).apply(variables, x)
    np.testing.assert_array_equal(rounded, norm.apply(variables, x).astype(jnp.bfloat16))


def test_layer_norm_of_a_constant_is_its_bias():
    norm = LayerNorm(1e-12)
    variables = norm.init(jax.random.key(0), jnp.ones((1, 8)))
    np.testing.assert_array_equal(norm.apply(variables, jnp.full((1, 8), 7.0)), 0)


class AddsNoise(nn.Module):
    """Layer that adds 0 or 2 at random, and has an unused parameter."""

    @nn.compact
    def __call__(self, x, mask, seeds):
        weight = self.param("weight", nn.initializers.normal(1.0), ())
        return x + dropout(jnp.ones_like(x), 0.5, seeds) * mask + 0 * weight, None


@pytest.mark.parametrize("remat", ["none", "layers"])
def test_stacked_layers_draw_their_own_parameters_and_their_own_dropout(remat):
    model = stacked(partial(AddsNoise), 2, remat)
    x, mask = jnp.zeros((50, 20)), jnp.ones(())
    weight = jax.jit(model.init)(jax.random.key(0), x, mask, None)["params"]["weight"]
    assert weight.shape == (2,)
    assert weight[0] != weight[1]
    seeds = row_seeds(jax.random.key(1), jnp.arange(50), 2)
    out, _ = jax.jit(model.apply)({"params": {"weight": weight}}, x, mask, seeds)
    # With the same draw for both layers, only 0 and 4 would occur.
    share = [(out == value).mean() for value in (0, 2, 4)]
    np.testing.assert_allclose(share, [0.25, 0.5, 0.25], atol=0.05)
