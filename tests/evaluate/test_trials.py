"""Confidence intervals of the difference between two models on the same queries."""

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.evaluate.metrics.trials import Trials, changes, digest


def pack(values, asked="x", figures=("t2i_r1", "t2i_r5")):
    return (Trials.pack(figures, asked, np.asarray(values)),)


def test_packed_values_round_trip():
    (one,) = pack([[0, 1], [1, 0.25], [0, 0]])
    assert one.unpack().tolist() == [[0, 1], [1, 0.25], [0, 0]]
    with pytest.raises(JclipError, match="per-query values cannot be read .*: evaluate again"):
        Trials(one.figures, "x", "AAAA").unpack()


def test_differences_are_paired():
    """Each query is better by 0.1, so the interval of the difference is a point however much the queries differ."""
    values_qf = np.random.default_rng(0).random((50, 2))
    found = changes(pack(values_qf), pack(values_qf + 0.1), "mean_recall")
    assert set(found) == {"t2i_r1", "t2i_r5", "mean_recall"}
    for low, high in found.values():
        assert low == pytest.approx(0.1, abs=1e-6) and high == pytest.approx(0.1, abs=1e-6)


def test_one_query_of_two_hundred():
    """Resampling draws it about Poisson(1) times; the 2.5% and 97.5% quantiles are 0 and 3."""
    before, after = np.zeros((200, 1)), np.zeros((200, 1))
    after[7] = 1
    low, high = changes(pack(before, figures=("accuracy",)), pack(after, figures=("accuracy",)))["accuracy"]
    assert (low, high) == (0, pytest.approx(3 / 200))


def test_other_queries_are_not_compared():
    assert changes(pack([[0, 1]]), pack([[0, 1]], "y")) == {}
    assert changes((), pack([[0, 1]])) == changes((), ()) == {}
    assert changes(pack([[0, 1]]), pack([[0, 1], [1, 1]])) == {}
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest(["a"], np.array([1])) != digest(["a"], np.array([2]))
