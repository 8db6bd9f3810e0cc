"""Dropout as a function of the example: what is dropped depends on the key and on the example's number alone.

So a batch drops the same whole, in micro-batches of any order, and split over any devices. One threefry hash for each
example and layer seeds a cheap hash of the positions; a threefry for each value, as `jax.random.bernoulli` draws, takes
twenty times as long on a CPU.

Axes: b batch, p places (layers) that draw apart, 2 the words of a seed.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio: multiples of it keep far apart


def row_seeds(key: jax.Array, rows_b: jax.Array, places: int) -> jax.Array:
    """A seed for each example at each place, (p, b, 2) uint32.

    Args:
      key: of the step.
      rows_b: integers that tell the examples apart, (b,).
      places: how many.
    """
    keys_p = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(places))
    keys_pb = jax.vmap(lambda each: jax.vmap(lambda row: jax.random.fold_in(each, row))(rows_b))(keys_p)
    return jax.random.key_data(keys_pb)[..., :2]


def random_bits(seeds_b2: jax.Array, shape: tuple[int, ...], site: int = 0) -> jax.Array:
    """Random uint32, (b, *shape), row by row from its seed; `site` tells apart what one place draws several times."""
    words = seeds_b2.reshape(-1, 2, *(1 for _ in shape))
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(1, *shape)
    start = words[:, 0] + np.uint32(site * _GOLDEN % 2**32)
    return mixed(mixed(count + start) ^ words[:, 1])


def dropout(x: jax.Array, rate: float, seeds_b2: jax.Array | None, site: int = 0) -> jax.Array:
    """`x` (b, ...) with a share `rate` of its values set to zero, the others scaled up so that the mean stays.

    Args:
      x: float.
      rate: at least 0 and below 1.
      seeds_b2: of the examples, see `row_seeds`; None drops nothing.
      site: see `random_bits`.
    """
    if seeds_b2 is None or rate == 0:
        return x
    kept = random_bits(seeds_b2, x.shape[1:], site) < np.uint32(round((1 - rate) * (2**32 - 1)))
    return jnp.where(kept, x / (1 - rate), 0)


def mixed(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every bit of the input moves every bit of the output: MurmurHash3's finaliser."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
