"""How far a figure could have come out otherwise with other queries of the same kind: the percentile bootstrap.

Efron and Tibshirani 1993, chapter 13. Queries are drawn again with replacement; the gallery, the model and its training
stay. So this says nothing about another seed of the training.

Axes: q queries, f figures, r resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES, LEVEL = 1000, 0.95
_AT_ONCE = 2**22  # counts held at once


def resampled_means(values_qf: npt.NDArray[Any], *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """(r, f): the means of each figure over queries drawn again, the same draw for all figures of a query.

    Args:
      values_qf: what each query contributes to each figure.
      seed: of the draws.
      resamples: how many.
    """
    draw = np.random.default_rng(seed)
    queries = len(values_qf)
    shares_q = np.full(queries, 1 / queries)
    size = max(1, _AT_ONCE // queries)
    parts = [
        draw.multinomial(queries, shares_q, size=min(size, resamples - start)) @ np.asarray(values_qf, np.float64)
        for start in range(0, resamples, size)
    ]
    return np.concatenate(parts) / queries


def interval(means_r: npt.NDArray[Any], level: float = LEVEL) -> Interval:
    """The central part of resampled figures that holds `level` of them."""
    low, high = np.quantile(means_r, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(names: Sequence[str], means_rf: npt.NDArray[Any], level: float = LEVEL) -> dict[str, Interval]:
    """`interval` of each figure, by name."""
    return {name: interval(means_r, level) for name, means_r in zip(names, means_rf.T, strict=True)}
