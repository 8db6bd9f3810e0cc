"""Whether numbers are numbers still, and which are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jclip import rules


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every element of every array is finite: a scalar."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def first_broken(params: dict[str, Any]) -> str | None:
    """The path of the first parameter with an element that is not finite; None when there is none."""
    finite = jax.device_get(_finite_leaves(rules.paths_of(params)))
    return next((path for path, fine in finite.items() if not np.all(fine)), None)


@jax.jit
def _finite_leaves(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: jnp.isfinite(leaf).all() for path, leaf in leaves.items()}
