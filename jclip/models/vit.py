"""CLIP's vision transformer (Radford et al. 2021, section 2.4).

Axes: b batch, h height, w width, c colours, l tokens (the class token, then the patches row by row), k pixels of a
patch, d width, e embedding.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jclip.config import kind_of
from jclip.errors import JclipError
from jclip.models.attention import with_even_tokens
from jclip.models.compute import Compute
from jclip.models.dropout import random_bits, row_seeds
from jclip.models.placements import EMBEDDINGS, ENDS, LAYERS, Placements, with_whole_heads
from jclip.models.spread import by_example, gathered
from jclip.models.towers import REDUCED_WIDTH, ImageTower, LayerNumbers, StackedTower, transformer_bytes
from jclip.models.transformer import Activation, LayerNorm, PreNormLayer, check_heads, run_to_token, two_stacks
from jclip.ranges import Depth, Range, Size, check_ranges


@kind_of(ImageTower)
@dataclass(frozen=True)
class VitConfig(StackedTower, ImageTower):
    """Vision transformer.

    Attributes:
      image_size: side of the square image, pixels; a multiple of the patch size.
      patch_size: side of a patch, pixels.
      width: width of the states.
      layers: number of layers.
      heads: number of attention heads; divides the width. Most published towers have heads of 64 channels.
      mlp_ratio: width of the MLPs' hidden layer over `width`.
      activation: "quick_gelu" (OpenAI's CLIP, Chinese-CLIP) or "gelu", exact (most of LAION's).
    """

    image_size: Size
    patch_size: Size
    width: Size
    layers: Depth
    heads: Size
    mlp_ratio: Annotated[int, Range(1, 64)] = 4
    activation: Activation = "quick_gelu"
    conversion: ClassVar[str] = "vit"

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(self.width, self.heads, self.activation)
        if self.image_size % self.patch_size:
            raise JclipError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}: fit it")

    @property
    def separable(self) -> bool:
        """See `Tower`."""
        return True

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def layer_numbers(self) -> LayerNumbers:
        """Numbers of the layers; the last norm learns like the last layer."""
        return (
            (r"[^/]*embedding|patch/.*|pre_norm/.*", 0),
            (r"post_norm/.*", self.layers),
            (r".*", self.layers + 1),
        )

    def sharding(self, tensor: int) -> Placements:
        """See `Tower`."""
        table = (*LAYERS, *EMBEDDINGS, (r"patch/kernel", "tensor+fsdp"), *ENDS)
        return with_whole_heads(table, self.heads, tensor)

    def build(self, embed_dim: int, compute: Compute, *, frozen_layers: int = 0, patch_dropout: float = 0.0) -> "Vit":
        """See `ImageTower`."""
        return Vit(self, embed_dim, compute, frozen_layers, patch_dropout)

    def reduced(self, image_size: int) -> "VitConfig":
        """See `ImageTower`."""
        return replace(self, image_size=image_size, patch_size=image_size // 2, width=REDUCED_WIDTH, layers=2, heads=2)

    @property
    def tokens(self) -> int:
        """See `ImageTower`."""
        return self.patches + 1

    @property
    def activation_bytes(self) -> int:
        """See `ImageTower`."""
        return transformer_bytes(self.tokens, self.width, self.heads, self.layers)


class Vit(nn.Module):
    """Patch, class-token and position embeddings, a norm, the layers, a norm, and the projection of the class token.

    Attributes:
      embed_dim: width of the projection.
      frozen_layers: number of first layers whose parameters are in "first_layers/", so that a stage can freeze them.
      patch_dropout: share of the patches that training drops (Li et al. 2022, FLIP); at least one is kept.
    """

    config: VitConfig
    embed_dim: int
    compute: Compute = Compute()
    frozen_layers: int = 0
    patch_dropout: float = 0.0

    def setup(self) -> None:
        """Declares the parameters and submodules."""
        config, width, dtype = self.config, self.config.width, self.compute.dtype
        if not 0 <= self.patch_dropout < 1:
            raise JclipError(f"patch_dropout {self.patch_dropout} is not possible: give 0 or more, and less than 1")
        init = nn.initializers.normal(width**-0.5)
        self.patch = Kernel((config.patch_size, config.patch_size, 3, width))
        self.class_embedding = self.param("class_embedding", init, (width,))
        self.position_embedding = self.param("position_embedding", init, (config.patches + 1, width))
        self.pre_norm = LayerNorm(dtype=dtype)
        self.layer = partial(
            PreNormLayer,
            heads=config.heads,
            hidden=config.mlp_ratio * width,
            activation=config.activation,
            depth=config.layers,
            compute=self.compute,
        )
        self.first_layers, self.layers = two_stacks(self.layer, config.layers, self.frozen_layers, self.compute.remat)
        self.post_norm = LayerNorm(dtype=dtype)
        self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=init, dtype=dtype)

    def __call__(self, images_bhwc: jax.Array, train: bool = False, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns embeddings of images, (b, e), not L2-normalised. Raises JclipError if they have another size.

        Images are normalised, of side `image_size`. `rows_b` are distinct integers of the examples. Patch dropout
        depends only on them and on the "dropout" key; None keeps all patches. `train` is not used.
        """
        del train
        dtype = self.compute.dtype
        check_image_size(images_bhwc, self.config.image_size)
        patches_blk = self._pixels(images_bhwc.astype(dtype))
        position_ld = gathered(self.position_embedding)
        position_bld = position_ld[None, 1:]
        if rows_b is not None and self.patch_dropout:
            kept_bl1 = self._kept(rows_b)[..., None]
            patches_blk = jnp.take_along_axis(patches_blk, kept_bl1, axis=1)
            position_bld = jnp.take_along_axis(position_bld, kept_bl1, axis=1)
        patches_bld = by_example(patches_blk) @ self.patch().astype(dtype).reshape(-1, self.config.width)
        patches_bld = by_example(patches_bld) + position_bld.astype(dtype)
        class_d = (gathered(self.class_embedding) + position_ld[0]).astype(dtype)

        class_b1d = jnp.broadcast_to(class_d, (patches_bld.shape[0], 1, self.config.width))
        x_bld = self.pre_norm(by_example(jnp.concatenate([class_b1d, patches_bld], axis=1)))
        x_bld, lengths_b = with_even_tokens(x_bld, self.config.heads, self.compute)
        class_bd = run_to_token((self.first_layers, self.layers), self.layer, self.frozen_layers, x_bld, lengths_b)
        return self.projection(by_example(self.post_norm(class_bd)))

    def _pixels(self, images_bhwc: jax.Array) -> jax.Array:
        """Returns the patches as rows of pixels, (b, l, k), so that a matrix product replaces the convolution."""
        side, grid = self.config.patch_size, self.config.image_size // self.config.patch_size
        patches = images_bhwc.reshape(-1, grid, side, grid, side, 3).swapaxes(2, 3)
        return patches.reshape(-1, grid * grid, side * side * 3)

    def _kept(self, rows_b: jax.Array) -> jax.Array:
        """Returns the indices of the patches to keep, (b, l), ascending; their number is the same for each example."""
        patches = self.config.patches
        seeds_b2 = row_seeds(self.make_rng("dropout"), rows_b, 1)[0]
        count = max(1, round((1 - self.patch_dropout) * patches))
        _, kept_bl = jax.lax.top_k(random_bits(seeds_b2, (patches,)), count)
        return jnp.sort(kept_bl, axis=1)


class Kernel(nn.Module):
    """Kernel of a convolution without bias, (height, width, in, out)."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the float32 kernel, with PyTorch's default initialisation, as in the reference implementations."""
        return self.param("kernel", conv_init, self.shape)


conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default initialisation: uniform within ± the square root of 1 / inputs."""


def check_image_size(images_bhwc: jax.Array, size: int) -> None:
    """Checks the shape of a tower's images; raises JclipError if it is not (batch, size, size, 3)."""
    if images_bhwc.ndim != 4 or images_bhwc.shape[1:] != (size, size, 3):
        shape = images_bhwc.shape
        raise JclipError(f"images have shape {shape}, but this tower reads (batch, {size}, {size}, 3): resize them")
