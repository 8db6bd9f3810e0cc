"""Builds models from configurations; computes their shapes and initial variables."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from jclip.models.compute import DEFAULT, Compute
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.text_encoder import TextEncoder, TextEncoderConfig

ModelConfig = DualEncoderConfig | TextEncoderConfig


def build_model(config: ModelConfig, compute: Compute = DEFAULT) -> DualEncoder | TextEncoder:
    """Returns the module for a configuration."""
    return DualEncoder(config, compute) if isinstance(config, DualEncoderConfig) else TextEncoder(config, compute)


def init_variables(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Returns initial variables: {"params": …} and, with batch norm, {"batch_stats": …}."""
    # Compiled as one program; operation by operation it takes seconds.
    return dict(jax.jit(build_model(config).init)(key, *_inputs(config)))


def variables_of(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables for `apply`; without "batch_stats" if there are none."""
    return {"params": params, **({"batch_stats": stats} if stats else {})}


def shapes(config: ModelConfig) -> dict[str, Any]:
    """Returns the shapes and dtypes of the variables, without computing them."""
    return jax.tree.map(lambda leaf: leaf, _shapes(config))  # a copy of the dicts, which callers may change


@lru_cache(64)  # tracing takes a fraction of a second, and a run asks about ten times
def _shapes(config: ModelConfig) -> dict[str, Any]:
    found = jax.eval_shape(lambda: init_variables(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found)  # on no mesh


def _inputs(config: ModelConfig) -> tuple[jax.Array, ...]:
    ids = jnp.zeros((1, min(4, config.text.longest)), jnp.int32)
    if isinstance(config, TextEncoderConfig):
        return (ids,)
    side = config.image.image_size
    return jnp.zeros((1, side, side, 3)), ids
