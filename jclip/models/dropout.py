"""Dropout that depends only on the key and on the number of the example.

So micro-batches and the number of devices do not change the values that a batch drops. One threefry hash for each
example and layer seeds a cheap hash of the positions. A threefry hash for each value, as in `jax.random.bernoulli`,
takes twenty times as long on a CPU.

Axes: b batch, p places (layers) with their own seeds, 2 words of a seed.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio, whose multiples are far apart


def row_seeds(key: jax.Array, rows_b: jax.Array, places: int) -> jax.Array:
    """Returns a seed for each example at each place, (p, b, 2) uint32, from the step's key.

    The examples have distinct integers `rows_b`.
    """
    keys_p = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(places))
    keys_pb = jax.vmap(lambda each: jax.vmap(lambda row: jax.random.fold_in(each, row))(rows_b))(keys_p)
    return jax.random.key_data(keys_pb)[..., :2]


def random_bits(seeds_b2: jax.Array, shape: tuple[int, ...], site: int = 0) -> jax.Array:
    """Returns random uint32, (b, *shape), each row from its seed; the draws of one place differ in `site`."""
    words = seeds_b2.reshape(-1, 2, *(1 for _ in shape))
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(1, *shape)
    start = words[:, 0] + np.uint32(site * _GOLDEN % 2**32)
    return mixed(mixed(count + start) ^ words[:, 1])


def dropout(x: jax.Array, rate: float, seeds_b2: jax.Array | None, site: int = 0) -> jax.Array:
    """Sets a share `rate` (0 to below 1) of the values of `x` (b, ...) to zero; scales the others to keep the mean.

    Without `seeds_b2`, from `row_seeds`, returns `x` unchanged. `site` is as in `random_bits`.
    """
    if seeds_b2 is None or rate == 0:
        return x
    return _dropout(x, rate, seeds_b2, site)


@partial(jax.custom_vjp, nondiff_argnums=(1, 3))
def _dropout(x: jax.Array, rate: float, seeds_b2: jax.Array, site: int) -> jax.Array:
    kept = random_bits(seeds_b2, x.shape[1:], site) < np.uint32(round((1 - rate) * (2**32 - 1)))
    return jnp.where(kept, x / (1 - rate), 0)


def _dropout_gradient(rate: float, site: int, seeds_b2: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    return _dropout(gradient, rate, seeds_b2, site), None


# The backward pass draws the bits again. Stored, they would take a byte for each value.
_dropout.defvjp(lambda x, rate, seeds_b2, site: (_dropout(x, rate, seeds_b2, site), seeds_b2), _dropout_gradient)


def mixed(x: jax.Array) -> jax.Array:
    """Returns a bijective hash of uint32 values: MurmurHash3's finaliser."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
