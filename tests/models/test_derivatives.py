"""Backward passes written by hand: gradients against automatic differentiation in float64, and what they store."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.models.derivatives import batch_norm, gelu, layer_norm, product, quick_gelu, relu, softmax
from jclip.models.dropout import dropout, row_seeds

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2, 3, size=(6, 7, 16))
SCALE, BIAS = RANDOM.normal(size=16), RANDOM.normal(size=16)


def plain_layer_norm(x, scale, bias, epsilon, dtype):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * scale + bias


def plain_batch_norm(x, scale, bias, epsilon, dtype):
    axes = (0, 1)
    return (x - x.mean(axes)) * jax.lax.rsqrt(x.var(axes) + epsilon) * scale + bias


NORMS = {
    "layer": (layer_norm, plain_layer_norm),
    "batch": (lambda *args: batch_norm(*args)[0], plain_batch_norm),
}
PLAIN = {
    "quick_gelu": (quick_gelu, lambda x: x * jax.nn.sigmoid(1.702 * x)),
    "gelu": (gelu, partial(jax.nn.gelu, approximate=False)),
    "relu": (relu, jax.nn.relu),
    "softmax": (lambda x: softmax(x, x.dtype), partial(jax.nn.softmax, axis=-1)),
}


def gradients(function, arguments, dtype):
    """Returns the gradients of a weighted sum of a function's results."""
    weights = jnp.asarray(np.cos(np.arange(X.size)).reshape(X.shape), dtype)
    typed = [jnp.asarray(each, dtype) for each in arguments]
    return jax.grad(lambda args: (function(*args) * weights).sum())(typed)


def in_float64(function, arguments):
    with jax.enable_x64(True):
        return [np.asarray(each) for each in gradients(function, arguments, jnp.float64)]


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1.0])
@pytest.mark.parametrize("norm", NORMS)
def test_norms(norm, epsilon):
    ours, plain = (partial(lambda f, x, s, b: f(x, s, b, epsilon, jnp.float32), each) for each in NORMS[norm])
    for found, expected in zip(
        gradients(ours, (X, SCALE, BIAS), jnp.float32), in_float64(plain, (X, SCALE, BIAS)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_activations_and_softmax(name):
    ours, plain = PLAIN[name]
    np.testing.assert_allclose(gradients(ours, (X,), jnp.float32)[0], in_float64(plain, (X,))[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("extreme", [-1e4, -40.0, 0.0, 40.0, 1e4])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "relu"])
def test_gradients_far_out_are_finite(activation, extreme):
    slope = jax.grad(PLAIN[activation][0])(jnp.float32(extreme))
    if extreme:
        np.testing.assert_allclose(slope, extreme > 0, atol=1e-6)
    else:
        np.testing.assert_allclose(slope, 0 if activation == "relu" else 0.5)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "relu"])
def test_bfloat16_gradients_are_rounded_once(activation):
    """Each backward pass computes in float32: its error is that of one rounding, 2^-9, and of its input's gradient."""
    ours, plain = PLAIN[activation]
    x, gradient = (jnp.asarray(each, jnp.bfloat16) for each in (X, np.cos(X)))
    found = jax.vjp(ours, x)[1](gradient)[0]
    expected = jax.vjp(plain, x.astype(jnp.float32))[1](gradient.astype(jnp.float32))[0]
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-6)


def test_a_product_rounds_its_gradient_first():
    a, b = (jnp.asarray(RANDOM.normal(size=(5, 8)), jnp.bfloat16) for _ in range(2))
    gradient = jnp.asarray(RANDOM.normal(size=(5, 5)), jnp.float32)
    result, pull_back = jax.vjp(partial(product, "ac,bc->ab"), a, b)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, np.asarray(a, np.float32) @ np.asarray(b, np.float32).T, rtol=1e-6, atol=1e-6)
    rounded = np.asarray(gradient.astype(jnp.bfloat16), np.float32)
    np.testing.assert_allclose(pull_back(gradient)[0], rounded @ np.asarray(b, np.float32), rtol=2**-7, atol=1e-2)


def test_dropout_is_its_own_gradient():
    seeds = row_seeds(jax.random.key(1), jnp.arange(6), 1)[0]
    drop = partial(dropout, rate=0.3, seeds_b2=seeds, site=2)
    result, pull_back = jax.vjp(drop, jnp.asarray(X, jnp.float32))
    np.testing.assert_array_equal(pull_back(jnp.ones_like(result))[0], drop(jnp.ones_like(result)))


STORES = {  # a function, and the dtypes and shapes of what its backward pass stores
    "layer_norm": (lambda x: layer_norm(x, SCALE, BIAS, 1e-5, jnp.bfloat16), {("bfloat16", X.shape): 1}),
    "batch_norm": (lambda x: batch_norm(x, SCALE, BIAS, 1e-5, jnp.bfloat16)[0], {("bfloat16", X.shape): 1}),
    "softmax": (lambda x: softmax(x.astype(jnp.float32), jnp.bfloat16), {("bfloat16", X.shape): 1}),
    "quick_gelu": (quick_gelu, {("bfloat16", X.shape): 1}),
    "gelu": (gelu, {("bfloat16", X.shape): 1}),
    "relu": (relu, {("bfloat16", X.shape): 1}),
    "dropout": (lambda x: dropout(x, 0.5, jnp.ones((6, 2), jnp.uint32)), {}),
}


@pytest.mark.parametrize("name", STORES)
def test_stored(name):
    """Of the size of the input, one array is stored, in the input's dtype."""
    function, expected = STORES[name]
    stored = jax.eval_shape(lambda x: jax.vjp(function, x)[1], jax.ShapeDtypeStruct(X.shape, jnp.bfloat16))
    large = [(str(leaf.dtype), leaf.shape) for leaf in jax.tree.leaves(stored) if leaf.size >= X.size]
    assert {each: large.count(each) for each in large} == expected
