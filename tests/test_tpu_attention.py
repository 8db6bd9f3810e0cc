"""Implementations of attention in the benchmark for TPUs, which are traced only: the kernels need a TPU."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from benchmarks.tpu_attention import IMPLEMENTATIONS
from jclip.models.attention import attend


@pytest.mark.parametrize("mask", ["none", "lengths", "causal"])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_takes_what_the_towers_give(name, mask):
    """Forward and backward, with the arguments of `jclip.models.attention.attend`."""
    x = jax.ShapeDtypeStruct((2, 5, 2, 8), jnp.bfloat16)
    lengths = jnp.array([3, 5]) if mask == "lengths" else None
    masks = {"lengths_b": lengths, "causal": mask == "causal", "drop": None, "implementation": "auto"}

    def passes(attention, *inputs):
        mixed, gradients = jax.vjp(partial(attention, **masks), *inputs)
        return mixed, gradients(mixed)

    found, expected = (jax.eval_shape(partial(passes, each), x, x, x) for each in (IMPLEMENTATIONS[name], attend))
    assert found == expected
