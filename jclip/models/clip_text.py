"""CLIP's causal text transformer (Radford et al. 2021, section 2.4), the teacher of AltCLIP.

Axes: b batch, l tokens, d width, e embedding.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jclip.config import kind_of
from jclip.models.bert import check_text_length
from jclip.models.compute import Compute
from jclip.models.spread import by_example, gathered, rows_of
from jclip.models.towers import REDUCED_WIDTH, LayerNumbers, StackedTower, TextTower, transformer_bytes
from jclip.models.transformer import (
    Activation,
    LayerNorm,
    PreNormLayer,
    check_heads,
    run_stacks,
    run_to_token,
    two_stacks,
)
from jclip.names import TokenizerKind
from jclip.ranges import Depth, Rows, Size, check_ranges

_MLP_RATIO = 4


@kind_of(TextTower)
@dataclass(frozen=True)
class ClipTextConfig(StackedTower, TextTower):
    """Causal text transformer.

    Attributes:
      vocab_size: rows of the token embedding; the last is end-of-text.
      context_length: rows of the position embedding: maximum number of tokens.
      width: width of the states.
      layers: number of layers.
      heads: number of attention heads; divides the width.
      activation: "quick_gelu" (OpenAI's) or "gelu", exact (most of LAION's).
    """

    vocab_size: Rows
    context_length: Rows
    width: Size
    layers: Depth
    heads: Size
    activation: Activation = "quick_gelu"
    conversion: ClassVar[str] = "clip_text"
    pad_id: ClassVar[None] = None  # type: ignore[misc]  # padding follows end-of-text, which cannot attend to it

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(self.width, self.heads, self.activation)

    @property
    def separable(self) -> bool:
        """See `Tower`."""
        return True

    @property
    def longest(self) -> int:
        """See `TextTower`."""
        return self.context_length

    @property
    def layer_numbers(self) -> LayerNumbers:
        """Numbers of the layers; the last norm learns like the last layer."""
        return ((r"[^/]*embedding", 0), (r"final_norm/.*", self.layers), (r".*", self.layers + 1))

    @property
    def tokenizer(self) -> TokenizerKind:
        """See `TextTower`."""
        return "clip_bpe"

    def build(
        self, embed_dim: int, compute: Compute, *, head_width: int | None = None, frozen_layers: int = 0
    ) -> "ClipText":
        """Returns the module; `head_width` is not used."""
        del head_width
        return ClipText(self, embed_dim, compute, frozen_layers)

    def reduced(self, vocab_size: int, context_length: int) -> "ClipTextConfig":
        """See `TextTower`."""
        width = REDUCED_WIDTH
        return replace(self, vocab_size=vocab_size, context_length=context_length, width=width, layers=2, heads=2)

    def activation_bytes(self, tokens: int) -> int:
        """See `TextTower`."""
        return transformer_bytes(tokens, self.width, self.heads, self.layers)


class ClipText(nn.Module):
    """Token and position embeddings, causal pre-norm layers, a norm, and the projection of end-of-text.

    `embed_dim` is the projection's width, and `frozen_layers` the number of first layers in "first_layers/", which a
    stage can freeze.
    """

    config: ClipTextConfig
    embed_dim: int
    compute: Compute = Compute()
    frozen_layers: int = 0

    def setup(self) -> None:
        """Declares the parameters and submodules."""
        config, width, dtype = self.config, self.config.width, self.compute.dtype
        normal = nn.initializers.normal
        self.token_embedding = self.param("token_embedding", normal(0.02), (config.vocab_size, width))
        self.position_embedding = self.param("position_embedding", normal(0.01), (config.context_length, width))
        self.layer = partial(
            PreNormLayer,
            heads=config.heads,
            hidden=_MLP_RATIO * width,
            activation=config.activation,
            depth=config.layers,
            causal=True,
            compute=self.compute,
        )
        self.first_layers, self.layers = two_stacks(self.layer, config.layers, self.frozen_layers, self.compute.remat)
        self.final_norm = LayerNorm(dtype=dtype)
        self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=normal(width**-0.5), dtype=dtype)

    def states(self, ids_bl: jax.Array) -> jax.Array:
        """Returns all tokens' states after the norm, (b, l, d). Raises JclipError if a text has too many tokens."""
        stacks = (self.first_layers, self.layers)
        return self.final_norm(run_stacks(stacks, self.layer, self.frozen_layers, self._embedded(ids_bl)))

    def state(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the states of end-of-text before the projection, (b, d); without dropout, `rows_b` is not used."""
        del rows_b
        # CLIP's own code takes the largest id too: some published configurations name a wrong end-of-text id.
        end_b = ids_bl.argmax(axis=1)
        stacks, x_bld = (self.first_layers, self.layers), self._embedded(ids_bl)
        end_bd = run_to_token(stacks, self.layer, self.frozen_layers, x_bld, token_b=end_b)
        return by_example(self.final_norm(end_bd))

    def __call__(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the embeddings of texts, (b, e), not L2-normalised."""
        return self.projection(self.state(ids_bl, rows_b))

    def _embedded(self, ids_bl: jax.Array) -> jax.Array:
        check_text_length(ids_bl, self.config.context_length)
        # Embeddings are summed in float32 even if they are stored in bfloat16.
        token_bld = rows_of(self.token_embedding, ids_bl).astype(jnp.float32)
        position_ld = gathered(self.position_embedding)[: ids_bl.shape[1]]
        return by_example(token_bld + position_ld).astype(self.compute.dtype)
