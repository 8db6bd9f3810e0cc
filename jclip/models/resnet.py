"""CLIP's modified ResNet (Radford et al. 2021, section 2.4): Chinese-CLIP's RN50.

Three convolutions in the stem, average pooling wherever another ResNet would stride, attention instead of the last
pooling. Axes: b batch, h height, w width, c channels, l places (their mean first), e embedding.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jclip.errors import JclipError
from jclip.models.attention import Attention
from jclip.models.remat import Remat, rematerialised
from jclip.models.spread import by_example
from jclip.models.transformer import check_heads
from jclip.models.vit import check_image_size, conv_init
from jclip.ranges import Range, Size, check_ranges

_EXPANSION = 4
_STRIDE = 32  # of the whole tower
_MOMENTUM, _EPSILON = 0.1, 1e-5  # PyTorch's defaults, which the reference keeps


@dataclass(frozen=True)
class ResNetConfig:
    """A modified ResNet.

    Attributes:
      image_size: side of the square image, pixels; a multiple of 32.
      layers: blocks in each of the four stages.
      width: channels after the stem; the last stage has 32 times as many.
      heads: of the pooling attention.
    """

    image_size: Size
    layers: Annotated[tuple[int, ...], Range(1, 1024)] = (3, 4, 6, 3)
    width: Annotated[int, Range(1, 2048)] = 64
    heads: Size = 32

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(32 * self.width, self.heads)
        if self.image_size % _STRIDE:
            raise JclipError(f"image_size {self.image_size} is not a multiple of {_STRIDE}, the stride of a ResNet")
        if len(self.layers) != 4:
            raise JclipError(f"layers {self.layers} must count the blocks of four stages")

    @property
    def conversion(self) -> str:
        """Name under which `jclip.conversion` knows the tower's parameters; empty if it does not."""
        return "resnet"


class ResNet(nn.Module):
    """The tower. Its running statistics are the collection "batch_stats"."""

    config: ResNetConfig
    embed_dim: int
    dtype: Dtype = jnp.float32
    remat: Remat = "none"

    @nn.compact
    def __call__(self, images_bhwc: jax.Array, train: bool = False, rows_b: jax.Array | None = None) -> jax.Array:
        """Embeddings of images.

        Args:
          images_bhwc: normalised, of side `image_size`.
          train: whether to normalise with the statistics of this batch, and to move the running ones towards them
            ("batch_stats" must then be mutable).
          rows_b: for a dropout, which there is none of here.

        Returns:
          (b, e), not L2-normalised.

        Raises:
          JclipError: images of another size.
        """
        del rows_b
        config = self.config
        check_image_size(images_bhwc, config.image_size)
        x_bhwc = Stem(config.width, self.dtype, name="stem")(images_bhwc.astype(self.dtype), train)
        block = rematerialised(Bottleneck, self.remat, static_argnums=(2,))
        for stage, blocks in enumerate(config.layers):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stage_{stage + 1}_block_{index + 1}"
                x_bhwc = block(config.width * 2**stage, stride, self.dtype, name=name)(x_bhwc, train)
        return AttentionPool(config.heads, self.embed_dim, self.dtype, name="attention_pool")(x_bhwc)


class Stem(nn.Module):
    """Three convolutions, the first with stride 2, and an average over 2x2."""

    width: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, train: bool) -> jax.Array:
        """(b, h, w, 3) to (b, h/4, w/4, width)."""
        for index, (channels, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), 1):
            x_bhwc = by_example(_conv(channels, 3, stride, self.dtype, f"conv_{index}")(x_bhwc))
            x_bhwc = nn.relu(BatchNorm(dtype=self.dtype, name=f"norm_{index}")(x_bhwc, train))
        return nn.avg_pool(x_bhwc, (2, 2), (2, 2))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut. Pooling, not a stride, halves both paths."""

    channels: int
    stride: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, train: bool) -> jax.Array:
        """(b, h, w, c) to (b, h/stride, w/stride, 4 * channels)."""

        def norm(name: str, x_bhwc: jax.Array, scale_init: Initializer = nn.initializers.ones) -> jax.Array:
            return BatchNorm(scale_init, self.dtype, name=name)(x_bhwc, train)

        x_bhwc, out_channels = by_example(x_bhwc), _EXPANSION * self.channels
        branch = nn.relu(norm("norm_1", by_example(_conv(self.channels, 1, 1, self.dtype, "conv_1")(x_bhwc))))
        branch = nn.relu(norm("norm_2", _conv(self.channels, 3, 1, self.dtype, "conv_2")(branch)))
        branch = _pool(branch, self.stride)
        branch = by_example(_conv(out_channels, 1, 1, self.dtype, "conv_3")(branch))
        # A block begins as its shortcut: the reference sets the last norm's scale to zero.
        branch = norm("norm_3", branch, nn.initializers.zeros)
        if self.stride > 1 or x_bhwc.shape[-1] != out_channels:
            x_bhwc = _conv(out_channels, 1, 1, self.dtype, "shortcut_conv")(_pool(x_bhwc, self.stride))
            x_bhwc = norm("shortcut_norm", by_example(x_bhwc))
        return nn.relu(branch + x_bhwc)


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch does it, statistics in float32 over every axis but the last.

    A batch is normalised with its own variance (sum of squares over n), but what moves the running variance is the
    unbiased one (over n - 1), which Flax's own module does not do. Under a mesh the batch is the global one.
    """

    scale_init: Initializer = nn.initializers.ones
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`x` normalised, scaled and shifted, in `dtype`; in training it moves "batch_stats"."""
        shape, axes = x.shape[-1:], tuple(range(x.ndim - 1))
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        x = x.astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var = x.mean(axes), x.var(axes)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value += _MOMENTUM * (mean - running_mean.value)
                running_var.value += _MOMENTUM * (unbiased - running_var.value)
        return ((x - mean) * jax.lax.rsqrt(var + _EPSILON) * scale + bias).astype(self.dtype)


class AttentionPool(nn.Module):
    """One query, the mean of all places, looks at the mean and at every place."""

    heads: int
    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """(b, h, w, c) to (b, features)."""
        batch, height, width, channels = x_bhwc.shape
        at_random = nn.initializers.normal(channels**-0.5)
        places_blc = x_bhwc.reshape(batch, height * width, channels)
        places_blc = jnp.concatenate([places_blc.mean(axis=1, keepdims=True), places_blc], axis=1)
        position_lc = self.param("position_embedding", at_random, (height * width + 1, channels))
        places_blc = places_blc + position_lc.astype(self.dtype)
        how: dict[str, Any] = {"dtype": self.dtype, "implementation": "xla"}  # one query: there is nothing to fuse
        pool = Attention(self.heads, at_random, at_random, self.features, **how, name="attention")
        return pool(places_blc[:, :1], places_blc)[:, 0]


def _conv(channels: int, size: int, stride: int, dtype: Dtype, name: str) -> nn.Conv:
    return nn.Conv(
        channels, (size, size), stride, size // 2, use_bias=False, kernel_init=conv_init, dtype=dtype, name=name
    )


def _pool(x_bhwc: jax.Array, stride: int) -> jax.Array:
    return x_bhwc if stride == 1 else nn.avg_pool(x_bhwc, (stride, stride), (stride, stride))
