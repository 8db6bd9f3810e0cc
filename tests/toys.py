"""Toy towers, as another package would define them: a few small matrices that compile in a fraction of a second.

Axes: b batch, h height, w width, c colours, l tokens, d width, e embedding.
"""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp

from jclip.models import Compute, DualEncoderConfig, ImageTower, TextTower, by_example, kind_of
from jclip.models.dropout import dropout, row_seeds

_SHARDING = ((r"layers/kernel", "-,fsdp,tensor"), (r"projection/kernel", "fsdp,tensor"), (r".*", "fsdp"))
_INIT = nn.initializers.normal(0.3)


@kind_of(ImageTower)
@dataclass(frozen=True)
class ToyImageConfig(ImageTower):
    """Linear map of the colours of an image's four quarters, and a stack of residual layers.

    Attributes:
      image_size: side of the images, pixels; even.
      width: width of the states.
      depth: number of layers.
    """

    image_size: int = 32
    width: int = 8
    depth: int = 3

    layer_numbers = ((r"input/.*", 0), (r".*", 4))
    patches = 4

    def sharding(self, tensor):
        return _SHARDING

    def build(self, embed_dim, compute, *, frozen_layers=0, patch_dropout=0.0):
        return ToyImage(self, embed_dim, compute, frozen_layers, patch_dropout)

    def reduced(self, image_size):
        return replace(self, image_size=image_size, width=4)


@kind_of(TextTower)
@dataclass(frozen=True)
class ToyTextConfig(TextTower):
    """Mean of the tokens' embeddings, and a stack of residual layers.

    Attributes:
      vocab_size: number of tokens.
      width: width of the states.
      depth: number of layers.
      longest: maximum number of tokens of a text.
      pad_id: id of the padding.
      dropout: rate on the last states.
    """

    vocab_size: int = 100
    width: int = 8
    depth: int = 3
    longest: int = 64
    pad_id: int = 0
    dropout: float = 0.1

    layer_numbers = ((r"table", 0), (r".*", 4))

    def sharding(self, tensor):
        return _SHARDING

    def build(self, embed_dim, compute, *, head_width=None, frozen_layers=0):
        return ToyText(self, embed_dim, compute, frozen_layers)

    def reduced(self, vocab_size, context_length):
        return replace(self, vocab_size=vocab_size, longest=context_length, width=4)


class _Layers(nn.Module):
    depth: int
    width: int

    @nn.compact
    def __call__(self, x_bd):
        kernel_ldd = self.param("kernel", _INIT, (self.depth, self.width, self.width))
        return jax.lax.scan(
            lambda x_bd, kernel_dd: (by_example(x_bd + jnp.tanh(x_bd @ kernel_dd)), None), x_bd, kernel_ldd
        )[0]


def _layers(config, frozen, x_bd):
    for name, depth in (("first_layers", frozen), ("layers", config.depth - frozen)):
        x_bd = _Layers(depth, config.width, name=name)(x_bd) if depth else x_bd
    return x_bd


def _seeds(module, rows_b):
    return None if rows_b is None else row_seeds(module.make_rng("dropout"), rows_b, 1)[0]


def _dense(width, name):
    return nn.Dense(width, use_bias=False, kernel_init=_INIT, name=name)


class ToyImage(nn.Module):
    config: ToyImageConfig
    embed_dim: int
    compute: Compute
    frozen_layers: int
    patch_dropout: float

    @nn.compact
    def __call__(self, images_bhwc, train=False, rows_b=None):
        half = self.config.image_size // 2
        quarters_bqc = images_bhwc.reshape(-1, 2, half, 2, half, 3).mean(axis=(2, 4)).reshape(-1, 4, 3)
        quarters_bqc = dropout(quarters_bqc, self.patch_dropout, _seeds(self, rows_b))
        x_bd = _dense(self.config.width, "input")(quarters_bqc.reshape(-1, 12))
        x_bd = _layers(self.config, self.frozen_layers, x_bd)
        return _dense(self.embed_dim, "projection")(x_bd).astype(self.compute.dtype)


class ToyText(nn.Module):
    config: ToyTextConfig
    embed_dim: int
    compute: Compute
    frozen_layers: int

    def setup(self):
        self.table = self.param("table", _INIT, (self.config.vocab_size, self.config.width))
        first, rest = self.frozen_layers, self.config.depth - self.frozen_layers
        self.first_layers = _Layers(first, self.config.width) if first else None
        self.layers = _Layers(rest, self.config.width) if rest else None
        self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=_INIT)

    def state(self, ids_bl, rows_b=None):
        weights_bl1 = (ids_bl != self.config.pad_id)[..., None]
        x_bd = (self.table[ids_bl] * weights_bl1).sum(axis=1) / jnp.maximum(weights_bl1.sum(axis=1), 1)
        for stack in (self.first_layers, self.layers):
            x_bd = x_bd if stack is None else stack(x_bd)
        return dropout(x_bd, self.config.dropout, _seeds(self, rows_b))

    def __call__(self, ids_bl, rows_b=None):
        return self.projection(self.state(ids_bl, rows_b)).astype(self.compute.dtype)


TOY = DualEncoderConfig(ToyImageConfig(), ToyTextConfig(), 8)
