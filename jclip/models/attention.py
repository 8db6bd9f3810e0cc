"""Multi-head attention, once, for every tower.

Axes: b batch, q queries, k keys, l tokens (where queries and keys are the same), h heads, c channels of a head,
d width of the model.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer


def attend(
    queries_bqhc: jax.Array,
    keys_bkhc: jax.Array,
    values_bkhc: jax.Array,
    mask: jax.Array | None = None,
    drop: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2), its softmax in float32.

    Args:
      queries_bqhc: any float dtype, like the keys and the values.
      keys_bkhc: as above.
      values_bkhc: as above.
      mask: True where a query may look; broadcasts to (b, h, q, k). A query that may look nowhere takes the plain mean
        of all values, so that an example made of padding alone stays finite.
      drop: dropout on the probabilities.

    Returns:
      (b, q, h, c), in the dtype of the values.
    """
    queries_bqhc = queries_bqhc * queries_bqhc.shape[-1] ** -0.5
    logits_bhqk = jnp.einsum("bqhc,bkhc->bhqk", queries_bqhc, keys_bkhc, preferred_element_type=jnp.float32)
    if mask is not None:
        logits_bhqk = jnp.where(mask, logits_bhqk, jnp.finfo(jnp.float32).min)
    weights_bhqk = jax.nn.softmax(logits_bhqk, axis=-1).astype(values_bkhc.dtype)
    if drop is not None:
        weights_bhqk = drop(weights_bhqk)
    return jnp.einsum("bhqk,bkhc->bqhc", weights_bhqk, values_bkhc)


class Attention(nn.Module):
    """Attention with its four projections, each with a bias.

    Attributes:
      heads: they divide the width of the queries.
      features: width of the result; None for the width of the queries.
      kernel_init: of the query, key and value projections.
      output_init: of the output projection.
      dropout: rate on the probabilities.
      dtype: of the computation; parameters are float32.
    """

    heads: int
    kernel_init: Initializer
    output_init: Initializer
    features: int | None = None
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_bqd: jax.Array, context_bkd: jax.Array, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """The queries' states `x_bqd` looking at `context_bkd`, (b, q, features); `mask` as in `attend`."""
        width = x_bqd.shape[-1]

        def project(name: str, states_bld: jax.Array) -> jax.Array:
            projected = nn.Dense(width, kernel_init=self.kernel_init, dtype=self.dtype, name=name)(states_bld)
            return projected.reshape(*projected.shape[:2], self.heads, width // self.heads)

        mixed_bqhc = attend(
            project("query", x_bqd),
            project("key", context_bkd),
            project("value", context_bkd),
            mask,
            nn.Dropout(self.dropout, deterministic=not train),
        )
        output = nn.Dense(self.features or width, kernel_init=self.output_init, dtype=self.dtype, name="output")
        return output(mixed_bqhc.reshape(*mixed_bqhc.shape[:2], width))
