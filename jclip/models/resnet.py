"""CLIP's modified ResNet (Radford et al. 2021, section 2.4): Chinese-CLIP's RN50.

It differs from other ResNets in three ways: three convolutions in the stem, average pooling instead of strides, and
attention instead of the last pooling.

Axes: b batch, h height, w width, c channels, l positions (their mean first), e embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jclip.config import kind_of
from jclip.errors import JclipError
from jclip.models.attention import Attention
from jclip.models.compute import Compute, rematerialised
from jclip.models.derivatives import batch_norm, relu
from jclip.models.placements import Placements, with_whole_heads
from jclip.models.spread import by_example, gathered, gathered_along
from jclip.models.towers import ImageTower, LayerNumbers
from jclip.models.transformer import check_heads
from jclip.models.vit import check_image_size, conv_init
from jclip.ranges import Range, Size, check_ranges

_EXPANSION = 4
_STRIDE = 32  # of the whole tower
_MOMENTUM, EPSILON = 0.1, 1e-5  # PyTorch's defaults, as in the reference


@kind_of(ImageTower)
@dataclass(frozen=True)
class ResNetConfig(ImageTower):
    """Modified ResNet.

    Attributes:
      image_size: side of the square image, pixels; a multiple of 32.
      layers: number of blocks in each of the four stages.
      width: channels after the stem; the last stage has 32 times as many.
      heads: number of heads of the pooling attention.
    """

    image_size: Size
    layers: Annotated[tuple[int, ...], Range(1, 1024)] = (3, 4, 6, 3)
    width: Annotated[int, Range(1, 2048)] = 64
    heads: Size = 32
    conversion: ClassVar[str] = "resnet"
    has_statistics: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(32 * self.width, self.heads)
        if self.image_size % _STRIDE:
            raise JclipError(f"image_size {self.image_size} is not a multiple of {_STRIDE}, a ResNet's stride: fit it")
        if len(self.layers) != 4:
            raise JclipError(f"layers {self.layers} are not the numbers of blocks of four stages: give four")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, from the first to the last."""
        return tuple(_name(stage, block) for stage, count in enumerate(self.layers) for block in range(count))

    @property
    def layer_numbers(self) -> LayerNumbers:
        """Numbers of the layers; a block is a layer."""
        blocks = ((rf"{name}/.*", number) for number, name in enumerate(self.blocks, 1))
        return ((r"stem/.*", 0), *blocks, (r".*", len(self.blocks) + 1))

    def sharding(self, tensor: int) -> Placements:
        """See `Tower`."""
        return with_whole_heads(_SHARDING, self.heads, tensor)

    def build(
        self, embed_dim: int, compute: Compute, *, frozen_layers: int = 0, patch_dropout: float = 0.0
    ) -> "ResNet":
        """Returns the module; a ResNet supports neither `frozen_layers` nor `patch_dropout`."""
        del frozen_layers, patch_dropout
        return ResNet(self, embed_dim, compute)

    def reduced(self, image_size: int) -> "ResNetConfig":
        """See `ImageTower`."""
        return replace(self, image_size=image_size, layers=(1, 1, 1, 1), width=8, heads=4)

    # Estimates from CLIP's RN50 at 224 pixels: 38 million parameters; per image 12 GFLOP and 70 MB of activations.
    @property
    def tokens(self) -> int:
        """Number of a transformer's tokens with the same arithmetic."""
        return round(158 * (self.image_size / 224) ** 2)

    @property
    def activation_bytes(self) -> int:
        """See `ImageTower`."""
        return round(70e6 * (self.image_size / 224) ** 2 * self.width / 64)


_SHARDING: Placements = (
    # conv_2 and conv_3 of a block are a pair like fc1 and fc2; the other convolutions are split along their outputs.
    (r"stage_.*/conv_3/kernel", "-,-,tensor,fsdp"),
    (r".*/(conv_.|shortcut_conv)/kernel", "-,-,fsdp,tensor"),
    (r"attention_pool/attention/(query|key|value)/kernel", "fsdp,tensor"),
    (r"attention_pool/attention/(query|key|value)/bias", "tensor"),
    (r"attention_pool/attention/output/kernel", "tensor,fsdp"),
    (r"attention_pool/position_embedding", "tensor+fsdp"),
    (r".*", "copy"),  # batch norms, and the bias of a sum
)


def _name(stage: int, block: int) -> str:
    return f"stage_{stage + 1}_block_{block + 1}"


Section = Callable[["ResNet", jax.Array], jax.Array]
"""Function of a tower and states, which returns states."""


class ResNet(nn.Module):
    """Image tower whose running statistics are the collection "batch_stats"."""

    config: ResNetConfig
    embed_dim: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, images_bhwc: jax.Array, train: bool = False, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns embeddings of images, (b, e), not L2-normalised. Raises JclipError if they have another size.

        Images are normalised, of side `image_size`. If `train`, batch norm uses the statistics of this batch, and moves
        the running ones towards them ("batch_stats" must be mutable). `rows_b` is not used: there is no dropout.
        """
        del rows_b
        config, dtype = self.config, self.compute.dtype
        check_image_size(images_bhwc, config.image_size)

        def stem(tower: ResNet, x_bhwc: jax.Array) -> jax.Array:
            del tower  # the current module, whose submodule this is
            return Stem(config.width, dtype, name="stem")(x_bhwc, train)

        def blocks(stage: int) -> Section:
            def run(tower: ResNet, x_bhwc: jax.Array) -> jax.Array:
                return tower._blocks(stage, x_bhwc, train)

            return run

        x_bhwc = self._section(stem)(self, images_bhwc.astype(dtype))
        for stage in range(len(config.layers)):
            x_bhwc = self._section(blocks(stage))(self, x_bhwc)
        return AttentionPool(config.heads, self.embed_dim, self.compute, name="attention_pool")(x_bhwc)

    def _section(self, run: Section) -> Section:
        """Returns `run`, (tower, x) -> x, wrapped so that "dots" stores only what its convolutions return.

        A stage of blocks is one such section. Its first input and its convolutions' results suffice to compute the
        inputs of all its blocks again, which take as much memory as the convolutions' results.
        """
        return rematerialised(run, "dots") if self.compute.remat == "dots" else run

    def _blocks(self, stage: int, x_bhwc: jax.Array, train: bool) -> jax.Array:
        """Returns `x_bhwc` after the blocks of a stage, of which "layers" stores only the inputs."""
        config, remat = self.config, self.compute.remat
        block = rematerialised(Bottleneck, "none" if remat == "dots" else remat, static_argnums=(2,))
        for index in range(config.layers[stage]):
            stride = 2 if stage > 0 and index == 0 else 1
            channels, name = config.width * 2**stage, _name(stage, index)
            x_bhwc = block(channels, stride, self.compute.dtype, name=name)(x_bhwc, train)
        return x_bhwc


class Stem(nn.Module):
    """Three convolutions, the first with stride 2, and 2x2 average pooling."""

    width: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, train: bool) -> jax.Array:
        """Maps (b, h, w, 3) to (b, h/4, w/4, width)."""
        for index, (channels, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), 1):
            x_bhwc = by_example(_conv(channels, 3, stride, self.dtype, f"conv_{index}")(x_bhwc))
            x_bhwc = relu(BatchNorm(dtype=self.dtype, name=f"norm_{index}")(x_bhwc, train))
        return nn.avg_pool(x_bhwc, (2, 2), (2, 2))


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 with a shortcut. Pooling, not a stride, halves both paths."""

    channels: int
    stride: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, train: bool) -> jax.Array:
        """Maps (b, h, w, c) to (b, h/stride, w/stride, 4 * channels)."""

        def norm(name: str, x_bhwc: jax.Array, scale_init: Initializer = nn.initializers.ones) -> jax.Array:
            return BatchNorm(scale_init, self.dtype, name=name)(x_bhwc, train)

        x_bhwc, out_channels = by_example(x_bhwc), _EXPANSION * self.channels
        branch = relu(norm("norm_1", by_example(_conv(self.channels, 1, 1, self.dtype, "conv_1")(x_bhwc))))
        branch = relu(norm("norm_2", _conv(self.channels, 3, 1, self.dtype, "conv_2")(branch)))
        branch = _pool(branch, self.stride)
        branch = by_example(_conv(out_channels, 1, 1, self.dtype, "conv_3", _split_by_outputs)(branch))
        # As in the reference, the last norm's scale starts at zero, so that a new block is its shortcut.
        branch = norm("norm_3", branch, nn.initializers.zeros)
        if self.stride > 1 or x_bhwc.shape[-1] != out_channels:
            x_bhwc = _conv(out_channels, 1, 1, self.dtype, "shortcut_conv")(_pool(x_bhwc, self.stride))
            x_bhwc = norm("shortcut_norm", by_example(x_bhwc))
        return relu(branch + x_bhwc)


class BatchNorm(nn.Module):
    """Batch normalisation as in PyTorch, with float32 statistics over every axis except the last.

    A batch is normalised with its biased variance (over n). Unlike in Flax's own module, the running variance follows
    the unbiased one (over n - 1). On a mesh the batch is the global one.
    """

    scale_init: Initializer = nn.initializers.ones
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `x` normalised, scaled and shifted, in `dtype`; updates "batch_stats" in training."""
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            inverse = jax.lax.rsqrt(running_var.value + EPSILON)
            return ((x.astype(jnp.float32) - running_mean.value) * inverse * scale + bias).astype(self.dtype)
        normalised, mean, var = batch_norm(x, scale, bias, EPSILON, self.dtype)
        if not self.is_initializing():
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value += _MOMENTUM * (mean - running_mean.value)
            running_var.value += _MOMENTUM * (unbiased - running_var.value)
        return normalised


class AttentionPool(nn.Module):
    """Attention from one query, the mean of all positions, to the mean and every position."""

    heads: int
    features: int
    compute: Compute

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """Maps (b, h, w, c) to (b, features)."""
        batch, height, width, channels = x_bhwc.shape
        init = nn.initializers.normal(channels**-0.5)
        x_blc = by_example(x_bhwc.reshape(batch, height * width, channels))
        x_blc = jnp.concatenate([x_blc.mean(axis=1, keepdims=True), x_blc], axis=1)
        position_lc = self.param("position_embedding", init, (height * width + 1, channels))
        x_blc = by_example(x_blc + gathered(position_lc).astype(self.compute.dtype))
        compute = replace(self.compute, attention="xla")  # cuDNN's kernel cannot have one query
        pool = Attention(self.heads, init, init, self.features, compute=compute, name="attention")
        return pool(x_blc[:, :1], x_blc)[:, 0]


def _split_by_inputs(x_bhwc: jax.Array, kernel: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
    """Convolves with a kernel whose input channels "fsdp" splits, see `_SHARDING`."""
    return jax.lax.conv_general_dilated(x_bhwc, gathered_along(kernel, 2), *arguments, **options)


def _split_by_outputs(x_bhwc: jax.Array, kernel: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
    """Convolves with a kernel whose output channels "fsdp" splits."""
    return jax.lax.conv_general_dilated(x_bhwc, gathered_along(kernel, 3), *arguments, **options)


def _conv(
    channels: int, size: int, stride: int, dtype: Dtype, name: str, convolve: Callable[..., Any] = _split_by_inputs
) -> nn.Conv:
    return nn.Conv(
        channels,
        (size, size),
        stride,
        size // 2,
        use_bias=False,
        kernel_init=conv_init,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def _pool(x_bhwc: jax.Array, stride: int) -> jax.Array:
    return x_bhwc if stride == 1 else nn.avg_pool(x_bhwc, (stride, stride), (stride, stride))
