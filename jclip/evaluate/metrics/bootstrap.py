"""Percentile bootstrap over queries (Efron and Tibshirani 1993, chapter 13).

Queries are resampled with replacement; gallery and model are fixed. So intervals do not cover other training seeds.

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
    """Returns (r, f) means of each figure over resampled queries; all figures share the draws.

    `values_qf` holds the contribution of each query to each figure.
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
    """Returns the central interval that holds a fraction `level` of the resampled figures."""
    low, high = np.quantile(means_r, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(names: Sequence[str], means_rf: npt.NDArray[Any], level: float = LEVEL) -> dict[str, Interval]:
    """Returns the interval of each figure, by name."""
    return {name: interval(means_r, level) for name, means_r in zip(names, means_rf.T, strict=True)}
