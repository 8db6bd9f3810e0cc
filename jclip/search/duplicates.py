"""Near duplicates: groups of vectors by cosine similarity, exact, in memory that does not grow with the pairs.

Vectors are read in the order of their numbers. Each joins the group whose first vector is most similar to it, if that
cosine is at least the threshold; otherwise it begins a group. So every member is similar to the first one, and a chain
of small changes, such as the frames of a film, does not become one group.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jclip.losses.normalise import l2_normalised
from jclip.search.scoring import Vectors

_ROWS, _COLUMNS = 2048, 8192
_ROUNDING = 1e-6


def groups_of(
    index: Vectors, live: np.ndarray, threshold: float, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[np.ndarray, np.ndarray]:
    """Assigns vectors to groups.

    Args:
      index: the vectors.
      live: sorted numbers of the vectors to compare, (n,) int64.
      threshold: least cosine similarity with the first vector of a group, above 0 and at most 1.
      report: called with the number of compared vectors, and n.

    Returns:
      First vector of each one's group, (n,) int64: a vector that begins a group has its own number; and the cosine
      similarity with it, (n,) float32.
    """
    first_n, cosine_n = live.copy(), np.ones(len(live), np.float32)
    begins_n = np.ones(len(live), bool)  # those that begin a group
    least = threshold - _ROUNDING
    for start in range(0, len(live), _ROWS):
        rows = slice(start, min(start + _ROWS, len(live)))
        some_nd = _padded(index.vectors_at(live[rows]), _ROWS)
        place_n, score_n = np.full(rows.stop - start, -1), np.full(rows.stop - start, -np.inf, np.float32)
        for columns in _slices(start):
            others_nd = _padded(index.vectors_at(live[columns]), _COLUMNS)
            allowed = np.zeros(_COLUMNS, bool)
            allowed[: columns.stop - columns.start] = begins_n[columns]
            best_n, at_n = (np.asarray(each)[: len(place_n)] for each in _nearest(some_nd, others_nd, allowed))
            better = best_n > score_n
            place_n[better], score_n[better] = columns.start + at_n[better], best_n[better]
        joins = score_n >= least
        within_nn = np.asarray(_cosines(some_nd))[: len(place_n), : len(place_n)]
        _join_within(within_nn, least, place_n, score_n, joins, start)
        begins_n[rows] = ~joins
        first_n[rows] = np.where(joins, live[place_n], live[rows])
        cosine_n[rows] = np.where(joins, np.minimum(score_n, 1), 1)
        report(rows.stop, len(live))
    return first_n, cosine_n


def _join_within(
    within_nn: np.ndarray, least: float, place_n: np.ndarray, score_n: np.ndarray, joins: np.ndarray, start: int
) -> None:
    """Lets the vectors of one block join groups that begin in it, in their order; changes the last arrays."""
    close_nn = np.tril(within_nn >= least, -1)
    for row in np.flatnonzero(close_nn.any(axis=1)):
        before = np.flatnonzero(close_nn[row, :row] & ~joins[:row])
        if not len(before):
            continue
        nearest = before[within_nn[row, before].argmax()]
        if not joins[row] or within_nn[row, nearest] > score_n[row]:
            joins[row], place_n[row], score_n[row] = True, start + nearest, within_nn[row, nearest]


def _slices(end: int) -> Iterator[slice]:
    for start in range(0, end, _COLUMNS):
        yield slice(start, min(start + _COLUMNS, end))


def _padded(rows_nd: np.ndarray, length: int) -> np.ndarray:
    """Returns rows with zeros up to `length`, so that one shape is compiled."""
    return np.concatenate([rows_nd, np.zeros((length - len(rows_nd), rows_nd.shape[1]), rows_nd.dtype)])


@jax.jit
def _nearest(some_nd: jax.Array, others_md: jax.Array, allowed_m: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the best cosine of each row with an allowed one of the others, and its place."""
    cosines_nm = _products(some_nd, others_md)
    cosines_nm = jnp.where(allowed_m & ~jnp.isnan(cosines_nm), cosines_nm, -jnp.inf)  # damaged vectors give NaN
    return cosines_nm.max(axis=1), cosines_nm.argmax(axis=1)


@jax.jit
def _cosines(rows_nd: jax.Array) -> jax.Array:
    return _products(rows_nd, rows_nd)


def _products(some_nd: jax.Array, others_md: jax.Array) -> jax.Array:
    return jnp.einsum("nd,md->nm", l2_normalised(some_nd), l2_normalised(others_md), precision="highest")
