"""Parts of the transformer towers: LayerNorm, MLP, CLIP's pre-norm layer, and stacks of layers.

BERT's post-norm layer is in bert.py.

Axes: b batch, l tokens, d width.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jclip.errors import JclipError
from jclip.models.attention import Attention
from jclip.models.compute import Compute, Remat, rematerialised
from jclip.models.derivatives import Tapped, gelu, layer_norm, quick_gelu, tapped, untapped
from jclip.models.separate import each_layer
from jclip.models.spread import by_example

Activation = Literal["quick_gelu", "gelu"]
CLIP_EPS = 1e-5


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": gelu,
}


def check_heads(width: int, heads: int, activation: Activation = "gelu") -> None:
    """Raises JclipError if the heads do not divide the width, or the activation is unknown."""
    if width % heads:
        raise JclipError(f"{heads} heads do not divide a width of {width}: change one")
    if activation not in ACTIVATIONS:
        raise JclipError(f"activation {activation!r} is unknown: choose one of {', '.join(ACTIVATIONS)}")


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, computed in float32 for any `dtype` of the result.

    In bfloat16 BERT's epsilon of 1e-12 would be lost.
    """

    epsilon: float = CLIP_EPS
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` normalised, scaled and shifted, in `dtype`."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias, self.epsilon, self.dtype)


class Mlp(nn.Module):
    """Multilayer perceptron with one hidden layer: fc1, an activation, fc2."""

    hidden: int
    activation: Activation
    fc1_init: Initializer
    fc2_init: Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_bld: jax.Array) -> jax.Array:
        """Maps (b, l, d) to (b, l, d)."""
        hidden = nn.Dense(self.hidden, kernel_init=self.fc1_init, dtype=self.dtype, name="fc1")(by_example(x_bld))
        hidden = ACTIVATIONS[self.activation](hidden)
        return by_example(nn.Dense(x_bld.shape[-1], kernel_init=self.fc2_init, dtype=self.dtype, name="fc2")(hidden))


class PreNormLayer(nn.Module):
    """Layer of CLIP's transformers: attention and MLP each normalise their input and add their result to it.

    Initialised as in OpenAI's text transformer: the last matrices of the residual branches shrink with the number of
    branches (Radford et al. 2019, section 2.3), two for each layer.

    Attributes:
      depth: number of such layers in the tower.
      causal: if true, a token attends only to itself and those before it.
    """

    heads: int
    hidden: int
    activation: Activation
    depth: int
    compute: Compute = Compute()
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x_bld: jax.Array,
        lengths_b: jax.Array | None,
        seeds_b2: None = None,
        wanted_bqd: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        """Returns the states after this layer, and None for `nn.scan`. Without dropout, `seeds_b2` is not used.

        `wanted_bqd` are the states of `x_bld` for whose tokens to compute the output; None for all. They attend to
        `lengths_b` tokens, even in a causal tower. `lengths_b` is as in `jclip.models.attention.attend`.
        """
        del seeds_b2
        causal, compute = self.causal and wanted_bqd is None, attention_of(wanted_bqd, self.compute)
        width, dtype = x_bld.shape[-1], self.compute.dtype
        first_init = nn.initializers.normal(width**-0.5)
        last_init = nn.initializers.normal((2 * width * self.depth) ** -0.5)
        fc1_init = nn.initializers.normal((2 * width) ** -0.5)
        attention = Attention(self.heads, first_init, last_init, causal=causal, compute=compute, name="attention")
        mlp = Mlp(self.hidden, self.activation, fc1_init, last_init, dtype, name="mlp")

        norm = LayerNorm(dtype=dtype, name="attention_norm")
        normed_bld = norm(x_bld)
        x_bqd, normed_bqd = (x_bld, normed_bld) if wanted_bqd is None else (wanted_bqd, norm(wanted_bqd))
        x_bqd = x_bqd + attention(normed_bqd, normed_bld, lengths_b)
        x_bqd = x_bqd + mlp(LayerNorm(dtype=dtype, name="mlp_norm")(x_bqd))
        return by_example(x_bqd), None


SHALLOW = 4
"""Maximum number of layers of a stack whose last layer `run_to_token` computes for one token only."""


def attention_of(wanted_bqd: jax.Array | None, compute: Compute) -> Compute:
    """Returns the settings of a layer's attention: not "cudnn" for `wanted_bqd`, which its kernel cannot compute."""
    return compute if wanted_bqd is None or compute.attention == "xla" else replace(compute, attention="auto")


Stacks = tuple[nn.Module | None, nn.Module | None]
"""Stack of the frozen first layers and stack of the others; None for a stack without layers."""


def two_stacks(layer: "partial[Any]", count: int, frozen: int, remat: Remat) -> Stacks:
    """Returns the first `frozen` of a tower's `count` layers and the others as two stacks, see `stacked`.

    A stage that freezes the first stack has no backward pass through it. The gradient of a part of one stack would be
    computed through the whole stack. Raises JclipError if `frozen` is below 0 or above `count`.
    """
    if not 0 <= frozen <= count:
        raise JclipError(f"frozen_layers of {frozen} is not possible in a tower of {count} layers: give 0 to {count}")
    first, others = (stacked(layer, size, remat) if size else None for size in (frozen, count - frozen))
    return first, others


def run_stacks(
    stacks: Stacks,
    layer: "partial[Any]",
    frozen: int,
    x_bld: jax.Array,
    lengths_b: jax.Array | None = None,
    seeds_lb2: jax.Array | None = None,
) -> jax.Array:
    """Returns the states after both of `two_stacks`, (b, l, d).

    Args:
      stacks: result of `two_stacks`.
      layer: as in `two_stacks`.
      frozen: number of layers of the first stack.
      x_bld: states before the first layer.
      lengths_b: number of tokens of each text before the padding; None for no padding.
      seeds_lb2: seeds of each layer's dropout; None for no dropout.
    """
    for stack, own in zip(stacks, (slice(frozen), slice(frozen, None)), strict=True):
        if stack is not None:
            x_bld = _run(stack, layer, x_bld, lengths_b, None if seeds_lb2 is None else seeds_lb2[own])
    return x_bld


def _run(
    stack: nn.Module, layer: "partial[Any]", x_bld: jax.Array, lengths_b: jax.Array | None, seeds_lb2: jax.Array | None
) -> jax.Array:
    """Returns the states after a stack of layers, (b, l, d)."""
    if _whole(stack):
        x_bld, _ = stack(by_example(x_bld), lengths_b, seeds_lb2)
        return x_bld
    compute, module = layer.keywords["compute"], layer(parent=None)
    narrow = jnp.dtype(compute.dtype).itemsize < jnp.dtype(jnp.float32).itemsize

    def run(x_bld: jax.Array, params: Any, seeds_b2: jax.Array | None) -> jax.Array:
        own = jax.tree.map(lambda leaf: untapped(leaf) if _is_tapped(leaf) else leaf, params, is_leaf=_is_tapped)
        x_bld, _ = module.apply({"params": own}, x_bld, lengths_b, seeds_b2)
        return x_bld

    # A scan's body is compiled apart from its reverse, so common-subexpression elimination cannot undo the remat.
    run = rematerialised(run, compute.remat, jax.checkpoint, prevent_cse=False)
    # Layers compute in `compute.dtype` with their matrices, and in float32 with norms.
    params = jax.tree.map(
        lambda leaf: tapped(leaf, compute.dtype) if narrow and leaf.ndim > 2 and leaf.dtype == jnp.float32 else leaf,
        stack.variables["params"],
    )
    x_bld, _ = jax.lax.scan(lambda x_bld, own: (run(x_bld, *own), None), by_example(x_bld), (params, seeds_lb2))
    return x_bld


def _is_tapped(leaf: Any) -> bool:
    return isinstance(leaf, Tapped)


def _whole(stack: nn.Module) -> bool:
    """Returns whether a stack must be called as a module: to be initialised, or for captured intermediates."""
    return bool(stack.is_initializing() or stack.is_mutable_collection("intermediates"))


def run_to_token(
    stacks: Stacks,
    layer: "partial[Any]",
    frozen: int,
    x_bld: jax.Array,
    lengths_b: jax.Array | None = None,
    seeds_lb2: jax.Array | None = None,
    token_b: jax.Array | None = None,
) -> jax.Array:
    """Returns the states of one token of each example after both of `two_stacks`, (b, d).

    The last layer of a shallow stack is computed for that token alone. In a tower of two layers that saves a third of
    the arithmetic. A deep stack is scanned, because its last layer saves little and its parameters would be copied;
    unless its layers are separate (`jclip.models.separate`).

    Args:
      stacks, frozen, x_bld, lengths_b, seeds_lb2: as in `run_stacks`.
      layer: as in `two_stacks`; called with a fourth argument, the states that are wanted.
      token_b: positions of the tokens; None for the first.
    """
    first, others = stacks
    last = cast(nn.Module, first if others is None else others)
    if first is not None and others is not None:
        x_bld = run_stacks((first, None), layer, frozen, x_bld, lengths_b, seeds_lb2)
        seeds_lb2 = None if seeds_lb2 is None else seeds_lb2[frozen:]

    def picked(x_bld: jax.Array) -> jax.Array:
        return x_bld[:, :1] if token_b is None else jnp.take_along_axis(x_bld, token_b[:, None, None], axis=1)

    layers = [] if _whole(last) else _apart(last.variables["params"])
    if not layers:
        x_bld = _run(last, layer, x_bld, lengths_b, seeds_lb2)
        return by_example(picked(by_example(x_bld))[:, 0])
    body = rematerialised(cast(type[nn.Module], layer.func), layer.keywords["compute"].remat)(
        **layer.keywords, parent=None
    )
    for number, params in enumerate(layers):
        wanted_b1d = None
        if number == len(layers) - 1:
            wanted_b1d = picked(x_bld)
            if token_b is not None and layer.keywords.get("causal"):
                lengths_b = token_b + 1
        seeds_b2 = None if seeds_lb2 is None else seeds_lb2[number]
        x_bld, _ = body.apply({"params": params}, by_example(x_bld), lengths_b, seeds_b2, wanted_b1d)
    return by_example(x_bld[:, 0])


def _apart(stack: Any) -> list[Any]:
    """Returns the parameters of each layer of a stack that is separate or shallow; an empty list for a deep one."""
    if layers := each_layer(stack):
        return layers
    count = len(jax.tree.leaves(stack)[0])
    return [jax.tree.map(lambda leaf, n=n: leaf[n], stack) for n in range(count)] if count <= SHALLOW else []


def stacked(layer: "partial[Any]", count: int, remat: Remat) -> nn.Module:
    """Returns `count` layers as one scan, whose parameters have a leading axis of layers.

    It compiles as fast as one layer.

    `layer` is a `partial` of a module's class: (x, lengths, seeds) -> (x, None). All layers get the same lengths. Each
    gets its own seeds from their leading axis. Both may be None.
    """
    scan: Callable[..., nn.Module] = nn.scan(
        # A scan's body is compiled apart from its reverse, so common-subexpression elimination cannot undo the remat.
        rematerialised(cast(type[nn.Module], layer.func), remat, prevent_cse=False),
        variable_axes={"params": 0, "intermediates": 0},  # captured intermediates are stacked like the parameters
        split_rngs={"params": True},
        in_axes=(nn.broadcast, 0),
        length=count,
    )
    return scan(**layer.keywords)
