"""What the transformer towers share: LayerNorm, the two-layer perceptron, CLIP's pre-norm layer, and stacking.

BERT's post-norm layer is another one, in bert.py. Axes: b batch, l tokens, d width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jclip.errors import JclipError
from jclip.models.attention import Attention, Implementation
from jclip.models.remat import Remat, rematerialised
from jclip.models.spread import by_example

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
        hidden = nn.Dense(self.hidden, kernel_init=self.fc1_init, dtype=self.dtype, name="fc1")(by_example(x_bld))
        hidden = ACTIVATIONS[self.activation](hidden)
        return by_example(nn.Dense(x_bld.shape[-1], kernel_init=self.fc2_init, dtype=self.dtype, name="fc2")(hidden))


class PreNormLayer(nn.Module):
    """A layer of CLIP's image and text transformers: each half adds to the residual what it makes of its norm.

    Initialised as OpenAI's code initialises its text transformer: the residual branches' last matrices shrink with the
    depth (Radford et al. 2019, section 2.3), of which there are two a layer.

    Attributes:
      depth: how many such layers the tower stacks.
      causal: whether a token looks back only.
      attention: what computes it, see `jclip.models.attention.attend`.
    """

    heads: int
    hidden: int
    activation: Activation
    depth: int
    dtype: Dtype = jnp.float32
    causal: bool = False
    attention: Implementation = "auto"

    @nn.compact
    def __call__(self, x_bld: jax.Array, lengths_b: jax.Array | None, seeds_b2: None = None) -> tuple[jax.Array, None]:
        """The states after this layer, and nothing: the form that a scan wants. There is no dropout to seed."""
        del seeds_b2
        width = x_bld.shape[-1]
        into = nn.initializers.normal(width**-0.5)
        back = nn.initializers.normal((2 * width * self.depth) ** -0.5)
        fc1 = nn.initializers.normal((2 * width) ** -0.5)
        how: dict[str, Any] = {"causal": self.causal, "dtype": self.dtype, "implementation": self.attention}
        attention = Attention(self.heads, into, back, **how, name="attention")
        mlp = Mlp(self.hidden, self.activation, fc1, back, self.dtype, name="mlp")

        normed_bld = LayerNorm(dtype=self.dtype, name="attention_norm")(x_bld)
        x_bld = x_bld + attention(normed_bld, normed_bld, lengths_b)
        x_bld = x_bld + mlp(LayerNorm(dtype=self.dtype, name="mlp_norm")(x_bld))
        return by_example(x_bld), None


def two_stacks(
    layer: type[nn.Module], count: int, first: int, remat: Remat, **attributes: Any
) -> tuple[nn.Module | None, nn.Module | None]:
    """The first so many layers of a tower and the others, each a stack, or None where it has no layer.

    A stage that freezes the first ones then leaves out their backward pass: a gradient with respect to a part of one
    stack is computed through all of it.

    Args:
      layer: see `stacked`.
      count: of all layers.
      first: how many of them stand apart.
      remat: see `stacked`.
      attributes: of the layer.

    Raises:
      JclipError: `first` is below 0 or above `count`.
    """
    if not 0 <= first <= count:
        raise JclipError(f"frozen_layers of {first} is not possible in a tower of {count} layers: give 0 to {count}")
    before, after = (stacked(layer, size, remat)(**attributes) if size else None for size in (first, count - first))
    return before, after


def run_stacks(
    stacks: tuple[nn.Module | None, nn.Module | None],
    first: int,
    x_bld: jax.Array,
    lengths_b: jax.Array | None = None,
    seeds_lb2: jax.Array | None = None,
) -> jax.Array:
    """The states after both of `two_stacks`, (b, l, d).

    Args:
      stacks: at least one of them a stack.
      first: layers of the first one.
      x_bld: the states before.
      lengths_b: of the texts, tokens; None where there is no padding.
      seeds_lb2: dropout's, a layer each; None drops nothing.
    """
    for stack, own in zip(stacks, (slice(first), slice(first, None)), strict=True):
        if stack is not None:
            x_bld, _ = stack(by_example(x_bld), lengths_b, None if seeds_lb2 is None else seeds_lb2[own])
    return x_bld


def stacked(layer: type[nn.Module], count: int, remat: Remat) -> Callable[..., nn.Module]:
    """The class of `count` such layers in a row: one scan, whose parameters have a leading axis of layers.

    Compiling takes as long for 32 layers as for one.

    Args:
      layer: called with (x, lengths, seeds) and returning (x, None). The lengths go to all layers alike; each takes its
        own seeds, from their leading axis; they may be None.
      count: of layers.
      remat: what of a layer the backward pass computes again.
    """
    return nn.scan(
        # A scan's body is compiled apart from its reverse, so nothing can be merged that must not be.
        rematerialised(layer, remat, prevent_cse=False),
        variable_axes={"params": 0, "intermediates": 0},  # what a caller captures is stacked like the parameters
        split_rngs={"params": True},
        in_axes=(nn.broadcast, 0),
        length=count,
    )
