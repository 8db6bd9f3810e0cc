"""Stacks of layers as separate layers, for inference on CPUs.

A scan over a stack copies each layer's parameters before it multiplies with them, which takes a third of the time of
one text (benchmarks/RESULTS.md). Separate layers are views of the stack, so they need no copy and no memory. But they
are compiled one by one, so training and accelerators keep the scan.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jclip.models.towers import Tower


def separated(params: Mapping[str, Any], towers: Mapping[str, Tower]) -> dict[str, Any]:
    """Returns a model's parameters with the stack of each separable tower as {"0": first layer, "1": …}.

    `params` are arrays on a CPU. The result shares their memory.
    """
    found = dict(params)
    for name, tower in towers.items():
        if name in params and tower.separable:
            layers = {str(number): _layer(params[name]["layers"], number) for number in range(tower.depth)}
            found[name] = {**params[name], "layers": layers}
    return found


def each_layer(stack: Mapping[str, Any]) -> list[Any]:
    """Returns the parameters of each layer of a stack that `separated` made; an empty list for any other stack."""
    return [stack[str(number)] for number in range(len(stack))] if "0" in stack else []


def _layer(stack: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[number], leaf.sharding), stack)
