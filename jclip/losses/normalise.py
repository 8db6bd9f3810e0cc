"""L2 normalisation."""

import jax
import jax.numpy as jnp


def l2_normalised(x_bd: jax.Array) -> jax.Array:
    """Returns rows of length 1 in float32, from rows of any scale and float dtype; rows of zeros stay zero."""
    x_bd = x_bd.astype(jnp.float32)
    # Without dividing by the largest entry, the square of a bfloat16 feature could overflow or underflow. The result
    # does not depend on this divisor, so it needs no gradient.
    largest_b1 = jax.lax.stop_gradient(jnp.abs(x_bd).max(axis=1, keepdims=True))
    x_bd = x_bd / jnp.where(largest_b1 > 0, largest_b1, 1)
    square_b1 = jnp.square(x_bd).sum(axis=1, keepdims=True)  # at least 1, except for rows of zeros
    return x_bd * jax.lax.rsqrt(jnp.maximum(square_b1, 0.5))
