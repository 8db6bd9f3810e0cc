"""Dropout that depends only on the key and on the number of the example.

A batch therefore drops the same values whole, in micro-batches of any order, and split over any devices. One threefry
hash for each example and layer seeds a cheap hash of the positions. A threefry for each value, as in
`jax.random.bernoulli`, takes twenty times as long on a CPU.

Axes: b batch, p places (layers) with their own seeds, 2 words of a seed.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio, whose multiples are far apart


def row_seeds(key: jax.Array, rows_b: jax.Array, places: int) -> jax.Array:
    """Returns a seed for each example at each place, (p, b, 2) uint32.

    Args:
      key: key of the step.
      rows_b: distinct integers of the examples, (b,).
      places: number of places.
    """
    keys_p = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(places))
    keys_pb = jax.vmap(lambda each: jax.vmap(lambda row: jax.random.fold_in(each, row))(rows_b))(keys_p)
    return jax.random.key_data(keys_pb)[..., :2]


def random_bits(seeds_b2: jax.Array, shape: tuple[int, ...], site: int = 0) -> jax.Array:
    """Returns random uint32, (b, *shape), each row from its seed; `site` numbers the draws of one place."""
    words = seeds_b2.reshape(-1, 2, *(1 for _ in shape))
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(1, *shape)
    start = words[:, 0] + np.uint32(site * _GOLDEN % 2**32)
    return mixed(mixed(count + start) ^ words[:, 1])


def dropout(x: jax.Array, rate: float, seeds_b2: jax.Array | None, site: int = 0) -> jax.Array:
    """Returns `x` (b, ...) with a share `rate` of its values set to zero and the others scaled up to keep the mean.

    Args:
      x: float array.
      rate: at least 0 and below 1.
      seeds_b2: seeds of the examples, see `row_seeds`; None for no dropout.
      site: see `random_bits`.
    """
    if seeds_b2 is None or rate == 0:
        return x
    kept = random_bits(seeds_b2, x.shape[1:], site) < np.uint32(round((1 - rate) * (2**32 - 1)))
    return jnp.where(kept, x / (1 - rate), 0)


def mixed(x: jax.Array) -> jax.Array:
    """Returns a bijective hash of uint32 in which every bit depends on every bit: MurmurHash3's finaliser."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
