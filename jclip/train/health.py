"""Checks for infinities and NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jclip.train.parked import on_devices
from jclip.train.state import TrainState


def all_finite(state: TrainState) -> bool:
    """Returns whether trainable parameters, batch statistics and optimizer slots are all finite."""
    return all(map(np.all, jax.tree.leaves(_finite_leaves(state._replace(frozen={})))))


def first_broken(state: TrainState) -> str | None:
    """Returns the path of the first parameter, statistic or slot that is not finite; None if all are finite.

    Statistics and slots have paths that begin with "stats" and "slots".
    """
    with on_devices(state) as whole:
        found = jax.tree_util.tree_leaves_with_path(_finite_leaves(whole))
    for path, fine in found:
        if not np.all(fine):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return name.removeprefix("trainable/").removeprefix("frozen/")
    return None


def _finite_leaves(state: Any) -> Any:
    """Returns whether each leaf is finite. Leaves of equal shape and dtype share a compiled program."""
    # One after another: on simulated devices, programs with collectives deadlock if they run at the same time.
    return jax.tree.map(lambda leaf: np.asarray(_is_finite(leaf)), state)


@jax.jit
def _is_finite(leaf: jax.Array) -> jax.Array:
    return jnp.isfinite(leaf).all()
