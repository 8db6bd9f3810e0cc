"""Checksums of sharded arrays, computed on the devices; independent of the sharding."""

from typing import Any

import jax
import jax.numpy as jnp

from jclip.models.dropout import mixed

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def checksums(tree: Any) -> dict[str, int]:
    """Returns {path: checksum} of a tree of arrays with 1, 2 or 4 bytes per element.

    Every element is hashed together with its index, and the hashes are summed modulo 2^32. A change, or a swap of two
    elements, goes unnoticed with probability 2^-32.
    """
    # One after another: on simulated devices, programs with collectives deadlock if they run at the same time.
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): int(_sum(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@jax.jit  # per leaf, not for the whole tree: leaves of equal shape and dtype share a program
def _sum(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(leaf, _WORDS[leaf.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return mixed(words ^ mixed(place)).sum(dtype=jnp.uint32)
