"""Precision, rematerialisation and the implementation of attention."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.derivatives import STATISTICS

Remat = Literal["none", "dots", "layers"]
"""Results that the backward pass recomputes, from most memory to least.

"none" stores every intermediate result. "dots" stores the outputs of products with parameters and recomputes the rest,
which is cheap: norms, activations, attention. "layers" stores the inputs of layers and recomputes everything else: a
third more arithmetic."""

Implementation = Literal["auto", "xla", "cudnn"]
"""Implementation of attention: "xla" is one program for all devices, "cudnn" is NVIDIA's fused kernel, and "auto" is
cuDNN if it can compute this and XLA if not, with the order of axes that suits the device."""


@dataclass(frozen=True)
class Compute:
    """Computation of a model. Parameters do not depend on it.

    `dtype` is that of the activations; parameters, norms and softmax are float32.
    """

    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    attention: Implementation = "auto"


DEFAULT = Compute()


def rematerialised(layer: type[nn.Module], remat: Remat, **options: Any) -> type[nn.Module]:
    """Returns a layer's class wrapped in `flax.linen.remat(**options)`. Raises JclipError for an unknown `remat`."""
    if remat not in get_args(Remat):
        raise JclipError(f"remat {remat!r} is unknown: choose one of {', '.join(get_args(Remat))}")
    if remat == "none":
        return layer
    return nn.remat(layer, policy=_made_by_a_product if remat == "dots" else None, **options)


def _made_by_a_product(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Returns whether to store the output of an operation: a policy of `jax.checkpoint`."""
    if primitive.name == "conv_general_dilated" or params.get("name") == STATISTICS:
        return True
    # A product with a batch dimension is attention's, whose size grows with the square of the length.
    return bool(jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *inputs, **params))
