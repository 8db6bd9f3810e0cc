"""Bootstrap intervals: their width, their seeds, and independence of the block size."""

import numpy as np
import pytest

from jclip.evaluate.metrics import bootstrap
from jclip.evaluate.metrics.bootstrap import interval, intervals, resampled_means


def test_equal_values_have_an_interval_of_one_point():
    means = resampled_means(np.ones((50, 2)))
    assert means.shape == (1000, 2)
    assert intervals(["a", "b"], means) == {"a": (1, 1), "b": (1, 1)}


def test_intervals_are_as_wide_as_a_binomials():
    # 400 of 1000 hits: the standard error of the share is sqrt(0.4 * 0.6 / 1000), 1.96 of them on either side.
    hits = (np.arange(1000) < 400)[:, None]
    low, high = interval(resampled_means(hits, resamples=4000)[:, 0])
    margin = 1.96 * np.sqrt(0.4 * 0.6 / 1000)
    assert (low, high) == (pytest.approx(0.4 - margin, abs=0.003), pytest.approx(0.4 + margin, abs=0.003))


def test_figures_of_a_query_are_resampled_together(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 1))
    pairs = resampled_means(np.concatenate([values, 2 * values], axis=1), seed=3)
    np.testing.assert_allclose(pairs[:, 1], 2 * pairs[:, 0])
    np.testing.assert_array_equal(pairs, resampled_means(np.concatenate([values, 2 * values], axis=1), seed=3))
    assert not np.allclose(pairs, resampled_means(np.concatenate([values, 2 * values], axis=1), seed=4))
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 100)
    np.testing.assert_allclose(pairs, resampled_means(np.concatenate([values, 2 * values], axis=1), seed=3), atol=1e-12)


def test_an_interval_of_level_one_half_is_between_the_quartiles():
    assert interval(np.arange(101.0), level=0.5) == (25, 75)
