"""Precision, rematerialisation and the implementation of attention."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.derivatives import STATISTICS

Remat = Literal["none", "dots", "layers"]
"""Results that the backward pass recomputes, from most memory to least.

"none" stores every intermediate result. "dots" stores the outputs of products with parameters and recomputes the rest,
which is cheap: norms, activations, attention. "layers" stores the inputs of layers and recomputes everything else: up
to a third more arithmetic."""

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


_CHEAP = 64  # sums of at most this many products are cheaper to compute again than to store
DEFAULT = Compute()
Layer = TypeVar("Layer", bound=Callable[..., Any])


def rematerialised(layer: Layer, remat: Remat, wrap: Callable[..., Any] = nn.remat, **options: Any) -> Layer:
    """Returns a layer wrapped in `wrap(**options)`. Raises JclipError for an unknown `remat`.

    For `flax.linen.remat`, a layer is the class of a module, or a function of a module and arrays; for
    `jax.checkpoint`, a function of arrays.
    """
    if remat not in get_args(Remat):
        raise JclipError(f"remat {remat!r} is unknown: choose one of {', '.join(get_args(Remat))}")
    if remat == "none":
        return layer
    wrapped: Layer = wrap(layer, policy=_made_by_a_product if remat == "dots" else None, **options)
    return wrapped


def _made_by_a_product(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Returns whether to store the output of an operation: a policy of `jax.checkpoint`."""
    if primitive.name == "conv_general_dilated":
        kernel, out_features = inputs[1].shape, params["dimension_numbers"].rhs_spec[0]
        return bool(math.prod(kernel) // kernel[out_features] > _CHEAP)
    if params.get("name") == STATISTICS:
        return True
    # A product with a batch dimension is attention's, whose size grows with the square of the length.
    return bool(jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *inputs, **params))
