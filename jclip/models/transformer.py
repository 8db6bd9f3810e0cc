"""What the transformer towers share: LayerNorm, the two-layer perceptron, CLIP's pre-norm layer, and stacking.

BERT's post-norm layer is another one, in bert.py. Axes: b batch, l tokens, d width.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jclip.errors import JclipError
from jclip.models.attention import Attention

Activation = Literal["quick_gelu", "gelu"]
CLIP_EPS = 1e-5


def quick_gelu(x: jax.Array) -> jax.Array:
    """x · sigmoid(1.702 x): the approximation that OpenAI's CLIP was trained with; up to 0.02 off the exact GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": partial(jax.nn.gelu, approximate=False),
}


def check_heads(width: int, heads: int, activation: Activation = "gelu") -> None:
    """Checks what every transformer's configuration has.

    Raises:
      JclipError: heads that do not divide the width, or an unknown activation.
    """
    if width % heads:
        raise JclipError(f"{heads} heads do not divide a width of {width}")
    if activation not in ACTIVATIONS:
        raise JclipError(f"activation {activation!r} is unknown: choose one of {', '.join(ACTIVATIONS)}")


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, in float32 whatever the dtype around it.

    BERT's epsilon of 1e-12 vanishes beside a variance in bfloat16. The variance is the mean squared deviation in two
    passes: E[x²] - E[x]² loses all its digits where the mean is large.
    """

    epsilon: float = CLIP_EPS
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` normalised, scaled and shifted, in `dtype`."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


class Mlp(nn.Module):
    """fc1, an activation, fc2."""

    hidden: int
    activation: Activation
    fc1_init: Initializer
    fc2_init: Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_bld: jax.Array) -> jax.Array:
        """(b, l, d) to (b, l, d)."""
        hidden = nn.Dense(self.hidden, kernel_init=self.fc1_init, dtype=self.dtype, name="fc1")(x_bld)
        hidden = ACTIVATIONS[self.activation](hidden)
        return nn.Dense(x_bld.shape[-1], kernel_init=self.fc2_init, dtype=self.dtype, name="fc2")(hidden)


class PreNormLayer(nn.Module):
    """A layer of CLIP's image and text transformers: each half adds to the residual what it makes of its norm.

    Initialised as OpenAI's code initialises its text transformer: the residual branches' last matrices shrink with the
    depth (Radford et al. 2019, section 2.3), of which there are two a layer.

    Attributes:
      depth: how many such layers the tower stacks.
    """

    heads: int
    hidden: int
    activation: Activation
    depth: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_bld: jax.Array, mask: jax.Array | None, train: bool) -> tuple[jax.Array, None]:
        """The states after this layer, and nothing: the form that a scan wants. There is no dropout for `train`."""
        width = x_bld.shape[-1]
        into = nn.initializers.normal(width**-0.5)
        back = nn.initializers.normal((2 * width * self.depth) ** -0.5)
        fc1 = nn.initializers.normal((2 * width) ** -0.5)
        attention = Attention(self.heads, into, back, dtype=self.dtype, name="attention")
        mlp = Mlp(self.hidden, self.activation, fc1, back, self.dtype, name="mlp")

        normed_bld = LayerNorm(dtype=self.dtype, name="attention_norm")(x_bld)
        x_bld = x_bld + attention(normed_bld, normed_bld, mask)
        x_bld = x_bld + mlp(LayerNorm(dtype=self.dtype, name="mlp_norm")(x_bld))
        return x_bld, None


def stacked(layer: type[nn.Module], count: int, remat: bool) -> Callable[..., nn.Module]:
    """The class of `count` such layers in a row: one scan, whose parameters have a leading axis of layers.

    Compiling takes as long for 32 layers as for one.

    Args:
      layer: called with (x, mask, train) and returning (x, None); mask and train go to all layers alike.
      count: of layers.
      remat: whether the backward pass computes a layer's inside again instead of keeping it: a third more arithmetic,
        and memory for one (b, l, d) a layer.
    """
    if remat:
        # A scan's body is compiled apart from its reverse, so nothing can be merged that must not be.
        layer = nn.remat(layer, prevent_cse=False, static_argnums=(3,))
    return nn.scan(
        layer,
        variable_axes={"params": 0, "intermediates": 0},  # what a caller captures is stacked like the parameters
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=count,
    )
