"""CLIP's vision transformer (Radford et al. 2021, section 2.4).

Axes: b batch, h height, w width, c colours, l tokens (the class token, then the patches row by row), d width,
e embedding.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.transformer import Activation, LayerNorm, PreNormLayer, check_heads, stacked


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer.

    Attributes:
      image_size: side of the square image, pixels; a multiple of the patch size.
      patch_size: side of a patch, pixels.
      width: of the states.
      layers: how many.
      heads: of attention; they divide the width, in 64 channels each in most published towers, 80 in ViT-H/14.
      mlp_ratio: width of the perceptrons' hidden layer over `width`.
      activation: "quick_gelu" (OpenAI's CLIP, Chinese-CLIP) or "gelu", exact (most of LAION's).
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: int = 4
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads, self.activation)
        if self.image_size % self.patch_size:
            raise JclipError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")


class Vit(nn.Module):
    """Patches, a class token and positions; a norm, the layers; a norm and the projection of the class token."""

    config: VitConfig
    embed_dim: int
    dtype: Dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: jax.Array, train: bool = False) -> jax.Array:
        """Embeddings of images.

        Args:
          images_bhwc: normalised, of side `image_size`.
          train: makes no difference here: there is no dropout and no batch norm.

        Returns:
          (b, e), not L2-normalised.

        Raises:
          JclipError: images of another size.
        """
        config = self.config
        check_image_size(images_bhwc, config.image_size)
        at_random = nn.initializers.normal(config.width**-0.5)
        patches_bld = self._patches(images_bhwc.astype(self.dtype))
        class_d = self.param("class_embedding", at_random, (config.width,))
        position_ld = self.param("position_embedding", at_random, (patches_bld.shape[1] + 1, config.width))

        class_b1d = jnp.broadcast_to(class_d.astype(self.dtype), (len(patches_bld), 1, config.width))
        x_bld = jnp.concatenate([class_b1d, patches_bld], axis=1) + position_ld.astype(self.dtype)
        x_bld = LayerNorm(dtype=self.dtype, name="pre_norm")(x_bld)
        layers = stacked(PreNormLayer, config.layers, self.remat)
        hidden = config.mlp_ratio * config.width
        x_bld, _ = layers(config.heads, hidden, config.activation, config.layers, self.dtype, name="layers")(
            x_bld, None, train
        )
        class_bd = LayerNorm(dtype=self.dtype, name="post_norm")(x_bld[:, 0])
        return nn.Dense(self.embed_dim, use_bias=False, kernel_init=at_random, dtype=self.dtype, name="projection")(
            class_bd
        )

    def _patches(self, images_bhwc: jax.Array) -> jax.Array:
        """The convolution whose stride is its size, as what it is: one matrix applied to each patch."""
        side, grid = self.config.patch_size, self.config.image_size // self.config.patch_size
        kernel = Kernel((side, side, 3, self.config.width), name="patch")().astype(self.dtype)
        patches = images_bhwc.reshape(-1, grid, side, grid, side, 3).swapaxes(2, 3)
        return patches.reshape(-1, grid * grid, side * side * 3) @ kernel.reshape(-1, self.config.width)


class Kernel(nn.Module):
    """The parameter of a convolution without bias, (height, width, in, out), under its own name."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        """The kernel, float32; initialised as PyTorch initialises a convolution, which the references leave it to."""
        return self.param("kernel", conv_init, self.shape)


conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default: uniform within ± the square root of 1 / inputs."""


def check_image_size(images_bhwc: jax.Array, size: int) -> None:
    """Checks that the images are what a tower was made for.

    Raises:
      JclipError: they have another size or another number of colours.
    """
    if images_bhwc.ndim != 4 or images_bhwc.shape[1:] != (size, size, 3):
        raise JclipError(f"images have shape {images_bhwc.shape}, but this tower reads (batch, {size}, {size}, 3)")
