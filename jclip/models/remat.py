"""What the backward pass computes again instead of keeping it."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax

from jclip.errors import JclipError

Remat = Literal["none", "dots", "layers"]
"""From much memory to little: "none" keeps all that the backward pass needs. "dots" keeps what a product with a
parameter made and computes the rest again, which is cheap: norms, activations, attention. "layers" keeps what goes into
a layer, and computes all of it again: a third more arithmetic."""


def rematerialised(layer: type[nn.Module], remat: Remat, **options: Any) -> type[nn.Module]:
    """The class of a layer whose backward pass computes again what `remat` says.

    Args:
      layer: any.
      remat: how much.
      options: of `flax.linen.remat`.

    Raises:
      JclipError: an unknown word.
    """
    if remat not in get_args(Remat):
        raise JclipError(f"remat {remat!r} is unknown: choose one of {', '.join(get_args(Remat))}")
    if remat == "none":
        return layer
    return nn.remat(layer, policy=_made_by_a_product if remat == "dots" else None, **options)


def _made_by_a_product(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """A policy of `jax.checkpoint`: whether an operation's output is kept."""
    if primitive.name == "conv_general_dilated":
        return True
    # With a batch dimension it is attention's, whose size grows with the square of the length.
    return bool(jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *inputs, **params))
