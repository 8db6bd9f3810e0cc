"""Text encoder without an image tower: a start for a recipe's text tower, or a sentence encoder.

Axes: b batch, l tokens, d width.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax

from jclip.errors import JclipError
from jclip.models.bert import Bert, BertConfig, Pooling
from jclip.models.compute import Compute
from jclip.models.towers import Tower


@dataclass(frozen=True)
class TextEncoderConfig:
    """Configuration of a BERT without an image tower; `pooling` is as in `Bert`."""

    text: BertConfig
    pooling: Pooling = "cls"

    def __post_init__(self) -> None:
        if self.pooling not in ("cls", "mean"):
            raise JclipError(f"pooling {self.pooling!r} is unknown: choose cls or mean")

    @property
    def towers(self) -> dict[str, Tower]:
        """The tower by the name of its parameters."""
        return {"text": self.text}

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings."""
        return self.text.width


class TextEncoder(nn.Module):
    """Model of a `TextEncoderConfig`. Its parameters are under "text/", as in a dual encoder."""

    config: TextEncoderConfig
    compute: Compute = Compute()

    def setup(self) -> None:
        """Declares the tower."""
        self.text = Bert(self.config.text, None, compute=self.compute, pooling=self.config.pooling)

    def encode_text(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the states of texts, (b, d), not L2-normalised; arguments as in `Bert.states`."""
        return self.text(ids_bl, rows_b)

    def __call__(self, ids_bl: jax.Array) -> jax.Array:
        """Returns the states of texts outside training."""
        return self.encode_text(ids_bl)
