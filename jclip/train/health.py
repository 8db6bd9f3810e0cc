"""Checks for infinities and NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jclip.train.state import TrainState


def all_finite(state: TrainState) -> bool:
    """Returns whether trainable parameters, batch statistics and optimizer slots are all finite."""
    return bool(_all_finite(state._replace(frozen={})))


def first_broken(state: TrainState) -> str | None:
    """Returns the path of the first parameter, statistic or slot that is not finite; None if all are finite.

    Statistics and slots have paths that begin with "stats" and "slots".
    """
    for path, fine in jax.tree_util.tree_leaves_with_path(jax.device_get(_finite_leaves(state))):
        if not np.all(fine):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return name.removeprefix("trainable/").removeprefix("frozen/")
    return None


@jax.jit
def _all_finite(state: TrainState) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


@jax.jit
def _finite_leaves(state: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), state)
