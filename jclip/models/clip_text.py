"""CLIP's causal text transformer (Radford et al. 2021, section 2.4): AltCLIP's teacher.

Axes: b batch, l tokens, d width, e embedding.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.models.attention import Implementation
from jclip.models.bert import check_text_length
from jclip.models.remat import Remat
from jclip.models.transformer import Activation, LayerNorm, PreNormLayer, check_heads, run_stacks, two_stacks
from jclip.ranges import Depth, Rows, Size, check_ranges

_MLP_RATIO = 4


@dataclass(frozen=True)
class ClipTextConfig:
    """A causal text transformer.

    Attributes:
      vocab_size: rows of the token embedding; the last is end-of-text.
      context_length: rows of the position embedding: the longest text, tokens.
      width: of the states.
      layers: how many.
      heads: of attention; they divide the width.
      activation: "quick_gelu" (OpenAI's) or "gelu", exact (most of LAION's).
    """

    vocab_size: Rows
    context_length: Rows
    width: Size
    layers: Depth
    heads: Size
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(self.width, self.heads, self.activation)

    @property
    def conversion(self) -> str:
        """Name under which `jclip.conversion` knows the tower's parameters; empty if it does not."""
        return "clip_text"

    @property
    def longest(self) -> int:
        """Number of tokens of the longest text."""
        return self.context_length


class ClipText(nn.Module):
    """Tokens and positions, pre-norm layers that look back only, a norm, and the projection of end-of-text.

    There is no dropout. Padding needs no mask: it follows end-of-text, which cannot see it.

    Attributes:
      embed_dim: of the projection.
      dtype: of the computation; parameters are float32.
      remat: what of a layer the backward pass computes again.
      first: so many layers have their parameters apart, under "first_layers/", so that a stage can freeze them.
      attention: what computes it, see `jclip.models.attention.attend`.
    """

    config: ClipTextConfig
    embed_dim: int
    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    first: int = 0
    attention: Implementation = "auto"

    def setup(self) -> None:
        """The parameters and the parts."""
        config, width = self.config, self.config.width
        normal = nn.initializers.normal
        self.token_embedding = self.param("token_embedding", normal(0.02), (config.vocab_size, width))
        self.position_embedding = self.param("position_embedding", normal(0.01), (config.context_length, width))
        self.first_layers, self.layers = two_stacks(
            PreNormLayer,
            config.layers,
            self.first,
            self.remat,
            heads=config.heads,
            hidden=_MLP_RATIO * width,
            activation=config.activation,
            depth=config.layers,
            dtype=self.dtype,
            causal=True,
            attention=self.attention,
        )
        self.final_norm = LayerNorm(dtype=self.dtype)
        self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=normal(width**-0.5), dtype=self.dtype)

    def states(self, ids_bl: jax.Array) -> jax.Array:
        """States of all tokens after the final norm, (b, l, d).

        Raises:
          JclipError: more tokens than positions.
        """
        check_text_length(ids_bl, self.config.context_length)
        # Tables that are kept in bfloat16 are summed in float32 all the same.
        token_bld = jnp.take(self.token_embedding, ids_bl, axis=0).astype(jnp.float32)
        x_bld = token_bld + self.position_embedding[: ids_bl.shape[1]]
        stacks = (self.first_layers, self.layers)
        return self.final_norm(run_stacks(stacks, self.first, x_bld.astype(self.dtype)))

    def state(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """The state of end-of-text before the projection, (b, d); the rows, for a dropout, make no difference."""
        del rows_b
        states_bld = self.states(ids_bl)
        # The largest id, as CLIP's own code picks it: some published configurations name a wrong end-of-text id.
        end_b = ids_bl.argmax(axis=1)
        return jnp.take_along_axis(states_bld, end_b[:, None, None], axis=1)[:, 0]

    def __call__(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Embeddings of texts, (b, e), not L2-normalised."""
        return self.projection(self.state(ids_bl, rows_b))
