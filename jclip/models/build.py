"""From a configuration to a model, its shapes, and fresh variables."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.text_encoder import TextEncoder, TextEncoderConfig

ModelConfig = DualEncoderConfig | TextEncoderConfig


def build_model(config: ModelConfig, dtype: Dtype = jnp.float32) -> DualEncoder | TextEncoder:
    """The module that a configuration describes; `dtype` is that of the computation."""
    return DualEncoder(config, dtype) if isinstance(config, DualEncoderConfig) else TextEncoder(config, dtype)


def init_variables(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Freshly initialised variables: {"params": …} and, for a ResNet, {"batch_stats": …}."""
    # Compiled as one: operation by operation it takes seconds.
    return dict(jax.jit(build_model(config).init)(key, *_inputs(config)))


def shapes(config: ModelConfig) -> dict[str, Any]:
    """The variables' shapes and dtypes, without computing any."""
    return jax.tree.map(lambda leaf: leaf, _shapes(config))  # whoever asked may change the dicts


@lru_cache(64)  # tracing takes a fraction of a second, and a run asks some ten times
def _shapes(config: ModelConfig) -> dict[str, Any]:
    found = jax.eval_shape(lambda: init_variables(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found)  # on no mesh


def _inputs(config: ModelConfig) -> tuple[jax.Array, ...]:
    ids = jnp.zeros((1, 4), jnp.int32)
    if isinstance(config, TextEncoderConfig):
        return (ids,)
    side = config.image.image_size
    return jnp.zeros((1, side, side, 3)), ids
