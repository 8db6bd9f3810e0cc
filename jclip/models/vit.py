"""CLIP's vision transformer (Radford et al. 2021, section 2.4).

Axes: b batch, h height, w width, c colours, l tokens (the class token, then the patches row by row), k pixels of a
patch, d width, e embedding.
"""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.attention import Implementation
from jclip.models.dropout import random_bits, row_seeds
from jclip.models.remat import Remat
from jclip.models.transformer import Activation, LayerNorm, PreNormLayer, check_heads, run_stacks, two_stacks
from jclip.ranges import Depth, Range, Size, check_ranges


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

    image_size: Size
    patch_size: Size
    width: Size
    layers: Depth
    heads: Size
    mlp_ratio: Annotated[int, Range(1, 64)] = 4
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(self.width, self.heads, self.activation)
        if self.image_size % self.patch_size:
            raise JclipError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @property
    def conversion(self) -> str:
        """Name under which `jclip.conversion` knows the tower's parameters; empty if it does not."""
        return "vit"

    @property
    def patches(self) -> int:
        """How many an image has."""
        return (self.image_size // self.patch_size) ** 2


class Vit(nn.Module):
    """Patches, a class token and positions; a norm, the layers; a norm and the projection of the class token.

    Attributes:
      embed_dim: of the projection.
      dtype: of the computation; parameters are float32.
      remat: what of a layer the backward pass computes again.
      first: so many layers have their parameters apart, under "first_layers/", so that a stage can freeze them.
      attention: what computes it, see `jclip.models.attention.attend`.
      patch_dropout: share of the patches that are left out in training (Li et al. 2022, FLIP); at least one stays.
    """

    config: VitConfig
    embed_dim: int
    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    first: int = 0
    attention: Implementation = "auto"
    patch_dropout: float = 0.0

    def setup(self) -> None:
        """The parameters and the parts."""
        config, width = self.config, self.config.width
        if not 0 <= self.patch_dropout < 1:
            raise JclipError(f"patch_dropout {self.patch_dropout} is not possible: give 0 or more, and less than 1")
        at_random = nn.initializers.normal(width**-0.5)
        self.patch = Kernel((config.patch_size, config.patch_size, 3, width))
        self.class_embedding = self.param("class_embedding", at_random, (width,))
        self.position_embedding = self.param("position_embedding", at_random, (config.patches + 1, width))
        self.pre_norm = LayerNorm(dtype=self.dtype)
        self.first_layers, self.layers = two_stacks(
            PreNormLayer,
            config.layers,
            self.first,
            self.remat,
            heads=config.heads,
            hidden=config.mlp_ratio * width,
            activation=config.activation,
            depth=config.layers,
            dtype=self.dtype,
            attention=self.attention,
        )
        self.post_norm = LayerNorm(dtype=self.dtype)
        self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=at_random, dtype=self.dtype)

    def __call__(self, images_bhwc: jax.Array, train: bool = False, rows_b: jax.Array | None = None) -> jax.Array:
        """Embeddings of images.

        Args:
          images_bhwc: normalised, of side `image_size`.
          train: makes no difference here: there is no batch norm.
          rows_b: integers that tell the examples apart: which patches are left out depends on the "dropout" key and on
            them alone. None keeps all.

        Returns:
          (b, e), not L2-normalised.

        Raises:
          JclipError: images of another size.
        """
        del train
        check_image_size(images_bhwc, self.config.image_size)
        patches_blk = self._pixels(images_bhwc.astype(self.dtype))
        position_bld = self.position_embedding[None, 1:]
        if rows_b is not None and self.patch_dropout:
            kept_bl1 = self._kept(rows_b)[..., None]
            patches_blk = jnp.take_along_axis(patches_blk, kept_bl1, axis=1)
            position_bld = jnp.take_along_axis(position_bld, kept_bl1, axis=1)
        patches_bld = patches_blk @ self.patch().astype(self.dtype).reshape(-1, self.config.width)
        patches_bld = patches_bld + position_bld.astype(self.dtype)
        class_d = (self.class_embedding + self.position_embedding[0]).astype(self.dtype)

        class_b1d = jnp.broadcast_to(class_d, (len(patches_bld), 1, self.config.width))
        x_bld = self.pre_norm(jnp.concatenate([class_b1d, patches_bld], axis=1))
        x_bld = run_stacks((self.first_layers, self.layers), self.first, x_bld)
        return self.projection(self.post_norm(x_bld[:, 0]))

    def _pixels(self, images_bhwc: jax.Array) -> jax.Array:
        """The patches as rows of their pixels: the convolution whose stride is its size is one matrix on each."""
        side, grid = self.config.patch_size, self.config.image_size // self.config.patch_size
        patches = images_bhwc.reshape(-1, grid, side, grid, side, 3).swapaxes(2, 3)
        return patches.reshape(-1, grid * grid, side * side * 3)

    def _kept(self, rows_b: jax.Array) -> jax.Array:
        """The patches that stay, (b, l), in their order, as many for each example."""
        patches = self.config.patches
        seeds_b2 = row_seeds(self.make_rng("dropout"), rows_b, 1)[0]
        staying = max(1, round((1 - self.patch_dropout) * patches))
        _, kept_bl = jax.lax.top_k(random_bits(seeds_b2, (patches,)), staying)
        return jnp.sort(kept_bl, axis=1)


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
