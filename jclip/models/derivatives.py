"""Functions with a backward pass of their own, which stores less than automatic differentiation does.

Automatic differentiation stores every intermediate result, in the float32 of the computation. These functions store
their input in its own dtype, and compute the rest again: a few operations per value, which cost less than reading the
stored results would. Results are those of automatic differentiation, up to rounding.

Axes: d the last axis, c channels.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax.ad_checkpoint import checkpoint_name

STATISTICS = "batch statistics"
"""Name of the results, for `jax.checkpoint`'s policies, whose recomputation would take collectives."""


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(x: jax.Array, scale_d: jax.Array, bias_d: jax.Array, epsilon: float, dtype: Dtype) -> jax.Array:
    """Returns `x` (..., d) normalised over its last axis in float32, scaled and shifted, in `dtype`.

    The variance is the mean squared deviation, in two passes, because E[x²] - E[x]² loses all its digits if the mean is
    large. The backward pass stores `x`, and a mean and a deviation for each row.
    """
    return _layer_norm(x, scale_d, bias_d, epsilon, dtype)[0]


def _layer_norm(
    x: jax.Array, scale_d: jax.Array, bias_d: jax.Array, epsilon: float, dtype: Dtype
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    return (centred * inverse * scale_d + bias_d).astype(dtype), (x, mean, inverse, scale_d, bias_d)


def _layer_norm_gradients(
    epsilon: float, dtype: Dtype, stored: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, ...]:
    del epsilon, dtype
    x, mean, inverse, scale_d, bias_d = stored
    gradient, leading = gradient.astype(jnp.float32), tuple(range(x.ndim - 1))
    normalised = (x.astype(jnp.float32) - mean) * inverse
    scaled = gradient * scale_d
    along = (scaled * normalised).mean(axis=-1, keepdims=True)
    of_x = inverse * (scaled - scaled.mean(axis=-1, keepdims=True) - normalised * along)
    of_scale, of_bias = (gradient * normalised).sum(leading), gradient.sum(leading)
    return of_x.astype(x.dtype), of_scale.astype(scale_d.dtype), of_bias.astype(bias_d.dtype)


layer_norm.defvjp(_layer_norm, _layer_norm_gradients)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: jax.Array, scale_c: jax.Array, bias_c: jax.Array, epsilon: float, dtype: Dtype
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `x` (..., c) normalised over all axes except the last, in `dtype`, and its mean and variance, (c).

    Computed in float32; the variance is the biased one. The backward pass stores `x`, mean and deviation. The mean and
    the variance that are returned have no gradient.
    """
    return _batch_norm(x, scale_c, bias_c, epsilon, dtype)[0]


def _batch_norm(
    x: jax.Array, scale_c: jax.Array, bias_c: jax.Array, epsilon: float, dtype: Dtype
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mean = checkpoint_name(wide.mean(axes), STATISTICS)
    # Not `wide.var`, which computes a mean of its own: on a mesh, one more sum over the devices.
    variance = checkpoint_name(jnp.square(wide - mean).mean(axes), STATISTICS)
    inverse = jax.lax.rsqrt(variance + epsilon)
    normalised = (wide - mean) * inverse * scale_c + bias_c
    return (normalised.astype(dtype), mean, variance), (x, mean, inverse, scale_c, bias_c)


def _batch_norm_gradients(
    epsilon: float, dtype: Dtype, stored: tuple[jax.Array, ...], gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    del epsilon, dtype
    x, mean, inverse, scale_c, bias_c = stored
    gradient, axes = gradients[0].astype(jnp.float32), tuple(range(x.ndim - 1))
    normalised = (x.astype(jnp.float32) - mean) * inverse
    of_scale, of_bias, count = (gradient * normalised).sum(axes), gradient.sum(axes), x.size // x.shape[-1]
    of_x = inverse * scale_c * (gradient - of_bias / count - normalised * (of_scale / count))
    return of_x.astype(x.dtype), of_scale.astype(scale_c.dtype), of_bias.astype(bias_c.dtype)


batch_norm.defvjp(_batch_norm, _batch_norm_gradients)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """Returns max(x, 0). The backward pass stores the result, which the next product stores too."""
    return jnp.maximum(x, 0)


def _relu_gradient(result: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(result > 0, gradient, 0),)


relu.defvjp(lambda x: (relu(x),) * 2, _relu_gradient)


@jax.custom_vjp
def quick_gelu(x: jax.Array) -> jax.Array:
    """Returns x · sigmoid(1.702 x), the GELU of OpenAI's CLIP; it differs from the exact one by up to 0.02."""
    return x * jax.nn.sigmoid(1.702 * x)


def _quick_gelu_gradient(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    wide = _wide(x)
    share = jax.nn.sigmoid(1.702 * wide)
    slope = share * (1 + 1.702 * wide * (1 - share))
    return ((_wide(gradient) * slope).astype(x.dtype),)


quick_gelu.defvjp(lambda x: (quick_gelu(x), x), _quick_gelu_gradient)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Returns x · Φ(x), with the exact Φ of the standard normal distribution (Hendrycks & Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=False)


def _gelu_gradient(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    wide = _wide(x)
    slope = jax.scipy.stats.norm.cdf(wide) + wide * jax.scipy.stats.norm.pdf(wide)
    return ((_wide(gradient) * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def softmax(logits: jax.Array, dtype: Dtype) -> jax.Array:
    """Returns the softmax over the last axis of float32 logits, in `dtype`. The backward pass stores this result."""
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


def _softmax(logits: jax.Array, dtype: Dtype) -> tuple[jax.Array, jax.Array]:
    weights = softmax(logits, dtype)
    return weights, weights


def _softmax_gradient(dtype: Dtype, weights: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    del dtype
    weights = weights.astype(jnp.float32)
    weighted = weights * gradient.astype(jnp.float32)
    return (weighted - weights * weighted.sum(axis=-1, keepdims=True),)


softmax.defvjp(_softmax, _softmax_gradient)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the `einsum` of two arrays of one dtype, in float32.

    The backward pass rounds the gradient to their dtype first. Automatic differentiation would multiply a float32
    gradient with bfloat16 arrays, and an A100 has at most half of its peak for float32 products (data sheet).
    """
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _product(equation: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(equation, a, b), (a, b)


def _product_gradients(equation: str, stored: tuple[jax.Array, jax.Array], gradient: jax.Array) -> Any:
    a, b = stored
    gradient = gradient.astype(a.dtype)
    # Not `jax.vjp`, which would trace the product once more.
    (of_a,) = jax.linear_transpose(lambda x: jnp.einsum(equation, x, b), a)(gradient)
    (of_b,) = jax.linear_transpose(lambda x: jnp.einsum(equation, a, x), b)(gradient)
    return of_a, of_b


product.defvjp(_product, _product_gradients)


class Tapped(NamedTuple):
    """Parameter without a gradient, and zeros of its shape whose gradient is the parameter's."""

    param: jax.Array
    tap: jax.Array


def tapped(param: jax.Array, dtype: Dtype) -> Tapped:
    """Returns a float32 parameter for a scan whose body computes with it in `dtype`, see `untapped`.

    A scan stacks the gradients of its arguments in their dtype. The gradient of a bfloat16 product is bfloat16: as that
    of a float32 argument it is stacked in float32, which takes twice the memory and adds no digits. As that of a tap it
    is stacked in bfloat16, and converted after the scan, where the optimizer reads it. Compilers remove the zeros, with
    which nothing is computed.
    """
    return Tapped(jax.lax.stop_gradient(param), _tap(param, dtype))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _tap(param: jax.Array, dtype: Dtype) -> jax.Array:
    return jnp.zeros(param.shape, dtype)


_tap.defvjp(lambda param, dtype: (_tap(param, dtype), None), lambda dtype, _, gradient: (gradient.astype(jnp.float32),))


@jax.custom_vjp
def untapped(tapped: Tapped) -> jax.Array:
    """Returns the parameter in the dtype of its tap, to which the gradient goes."""
    return tapped.param.astype(tapped.tap.dtype)


def _untapped_gradient(_: None, gradient: jax.Array) -> tuple[Tapped]:
    no_gradient: Any = None  # of the parameter
    return (Tapped(no_gradient, gradient),)


untapped.defvjp(lambda tapped: (untapped(tapped), None), _untapped_gradient)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
