"""Whether numbers are numbers still, and which are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jclip.train.state import TrainState


def all_finite(state: TrainState) -> bool:
    """Whether all that training changes is finite: parameters, batch-norm statistics, the optimizer's slots."""
    return bool(_all_finite(_changing(state)))


def first_broken(state: TrainState) -> str | None:
    """The path of the first parameter with an element that is not finite, or else of a statistic or a slot.

    Parameters have the names that rules know; the others begin with "stats" or "slots". None when all are finite.
    """
    finite = jax.device_get(_finite_leaves(_changing(state)))
    for path, fine in jax.tree_util.tree_leaves_with_path(finite):
        if not np.all(fine):
            return jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("trainable/")
    return None


def first_broken_at_start(state: TrainState) -> str | None:
    """Returns the path of the first parameter or statistic that is not finite, trained or frozen; None for none."""
    begun = {"trainable": state.trainable, "frozen": state.frozen, "stats": state.stats}
    for path, fine in jax.tree_util.tree_leaves_with_path(jax.device_get(_finite_leaves(begun))):
        if not np.all(fine):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return name.removeprefix("trainable/").removeprefix("frozen/")
    return None


def _changing(state: TrainState) -> TrainState:
    return state._replace(frozen={})


@jax.jit
def _all_finite(state: TrainState) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


@jax.jit
def _finite_leaves(state: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), state)
