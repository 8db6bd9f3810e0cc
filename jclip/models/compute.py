"""How a model computes: precision, rematerialisation and the implementation of attention."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError

Remat = Literal["none", "dots", "layers"]
"""What the backward pass recomputes, from much memory to little.

"none" stores every intermediate result. "dots" stores the outputs of products with parameters and recomputes the rest,
which is cheap: norms, activations, attention. "layers" stores the inputs of layers and recomputes everything else: a
third more arithmetic."""

Implementation = Literal["auto", "xla", "cudnn"]
"""Implementation of attention: "xla" runs anywhere, "cudnn" is NVIDIA's fused kernel, and "auto" takes cuDNN where it
can and XLA elsewhere."""


@dataclass(frozen=True)
class Compute:
    """How a model computes. Parameters do not depend on it.

    Attributes:
      dtype: dtype of the activations; parameters, norms and softmax are float32.
      remat: what the backward pass recomputes.
      attention: implementation of attention.
    """

    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    attention: Implementation = "auto"


DEFAULT = Compute()


def rematerialised(layer: type[nn.Module], remat: Remat, **options: Any) -> type[nn.Module]:
    """Returns the class of a layer whose backward pass recomputes what `remat` says.

    Args:
      layer: any module.
      remat: see `Remat`.
      options: passed to `flax.linen.remat`.

    Raises:
      JclipError: `remat` is unknown.
    """
    if remat not in get_args(Remat):
        raise JclipError(f"remat {remat!r} is unknown: choose one of {', '.join(get_args(Remat))}")
    if remat == "none":
        return layer
    return nn.remat(layer, policy=_made_by_a_product if remat == "dots" else None, **options)


def _made_by_a_product(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Policy of `jax.checkpoint`: returns whether to store the output of an operation."""
    if primitive.name == "conv_general_dilated":
        return True
    # A product with a batch dimension is attention's, whose size grows with the square of the length.
    return bool(jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *inputs, **params))
