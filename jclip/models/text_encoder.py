"""A text encoder without a partner: what a recipe's text tower starts from, or a sentence encoder in its own right.

Axes: b batch, l tokens, d width.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.attention import Implementation
from jclip.models.bert import Bert, BertConfig, Pooling
from jclip.models.remat import Remat


@dataclass(frozen=True)
class TextEncoderConfig:
    """A BERT alone.

    Attributes:
      text: its sizes.
      pooling: how a text's states become one vector: "cls" or "mean".
    """

    text: BertConfig
    pooling: Pooling = "cls"

    def __post_init__(self) -> None:
        if self.pooling not in ("cls", "mean"):
            raise JclipError(f"pooling {self.pooling!r} is unknown: choose cls or mean")


class TextEncoder(nn.Module):
    """The model. Its parameters are under "text/", where a dual encoder has them too.

    Attributes:
      dtype: of the computation; parameters, norms and softmax are float32.
      remat: what of a layer the backward pass computes again.
      attention: what computes it, see `jclip.models.attention.attend`.
    """

    config: TextEncoderConfig
    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    attention: Implementation = "auto"

    def setup(self) -> None:
        """The tower."""
        how: dict[str, Any] = {"dtype": self.dtype, "remat": self.remat, "attention": self.attention}
        self.text = Bert(self.config.text, None, pooling=self.config.pooling, **how)

    def text_states(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """States of all tokens after the last layer, (b, l, d); arguments as in `Bert.states`."""
        return self.text.states(ids_bl, rows_b)

    def encode_text(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """One state for each text, (b, d), not L2-normalised; arguments as in `Bert.states`."""
        return self.text(ids_bl, rows_b)

    def __call__(self, ids_bl: jax.Array) -> jax.Array:
        """The same as `encode_text`, outside training."""
        return self.encode_text(ids_bl)
