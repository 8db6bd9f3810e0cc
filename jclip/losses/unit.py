"""Features on the unit sphere."""

import jax
import jax.numpy as jnp


def unit(x_bd: jax.Array) -> jax.Array:
    """Rows of length 1 in float32, from rows of any scale and float dtype; a row of zeros stays one."""
    x_bd = x_bd.astype(jnp.float32)
    # The direction does not depend on the scale, so neither the largest entry nor its gradient matters; without it the
    # square of a bfloat16 feature can overflow or vanish.
    largest_b1 = jax.lax.stop_gradient(jnp.abs(x_bd).max(axis=1, keepdims=True))
    x_bd = x_bd / jnp.where(largest_b1 > 0, largest_b1, 1)
    square_b1 = jnp.square(x_bd).sum(axis=1, keepdims=True)  # at least 1, but for a row of zeros
    return x_bd * jax.lax.rsqrt(jnp.maximum(square_b1, 0.5))
