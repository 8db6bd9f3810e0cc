"""Counts the FLOPs of a function from its jaxpr.

XLA's `cost_analysis` counts the body of a scan only once, and the towers scan over their layers. So matmuls and
convolutions are counted here, times the length of each loop. Elementwise operations, a few percent, are not counted.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
from jax.extend import core

_CUDNN_PRODUCTS = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}
"""Number of matmuls of jax's primitive for fused attention. The backward pass has four, and recomputes the logits."""


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Counts the multiplications and additions of all matmuls and convolutions of a function, which is only traced.

    The arguments are arrays or shapes.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contract, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * prod(equation.outvars[0].aval.shape) * prod(shape[axis] for axis in contract)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_features = params["dimension_numbers"].rhs_spec[0]
        per_output = prod(size for axis, size in enumerate(kernel) if axis != out_features)
        return 2 * prod(equation.outvars[0].aval.shape) * per_output
    if name in _CUDNN_PRODUCTS:
        (batch, queries, heads, channels), keys = equation.invars[0].aval.shape, equation.invars[1].aval.shape[1]
        return _CUDNN_PRODUCTS[name] * 2 * batch * heads * queries * keys * channels
    inner = sum(_count(sub) for sub in _inner(params))
    if name == "shard_map":  # its body is one device's share
        return inner * int(params["mesh"].size)
    return inner * params["length"] if name == "scan" else inner


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found
