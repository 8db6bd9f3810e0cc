"""Logistic regression against scikit-learn, the sweep over penalties, and shots drawn by a seed."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jclip.errors import JclipError
from jclip.evaluate.metrics.logistic_regression import draw_shots, fit, fit_probe, held_out, sweep
from jclip.parallel.mesh import make_mesh


def clouds(rows, classes=3, width=5, noise=1.0, seed=0):
    """Returns (features, classes): a cloud for each class, with the same centres for every seed."""
    centres = np.random.default_rng(99).normal(size=(classes, width))
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    features = centres[labels] + noise * draw.normal(size=(rows, width))
    return features.astype(np.float32), labels


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("spread", [False, True], ids=["one device", "mesh"])
def test_weights_equal_scikit_learns(penalty, spread):
    features, labels = clouds(101)  # which no number of devices divides
    if spread:
        with jax.set_mesh(make_mesh()):
            ours = fit(features, labels, 3, penalty)
    else:
        ours = fit(features, labels, 3, penalty)
    theirs = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000).fit(features.astype(np.float64), labels)
    np.testing.assert_allclose(ours.weights_dc.T, theirs.coef_, atol=2e-3)
    # Only differences between biases matter.
    np.testing.assert_allclose(
        ours.bias_c - ours.bias_c.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3
    )


def test_fitting_is_deterministic():
    features, labels = clouds(60)
    one, other = (fit(features, labels, 3, 0.5) for _ in range(2))
    np.testing.assert_array_equal(one.weights_dc, other.weights_dc)


def test_the_sweep_finds_the_middle_and_refits_on_both():
    train, valid = clouds(40, width=20, noise=4.0), clouds(300, width=20, noise=4.0, seed=1)
    found, tried = sweep(train, valid, 3)
    assert tried[found.penalty] == max(tried.values())
    assert found.penalty == max(penalty for penalty, accuracy in tried.items() if accuracy == max(tried.values()))
    assert set(np.round(np.log10(list(tried)), 6) * 8 % 1) == {0}  # eighths of decades
    both = [np.concatenate(pair) for pair in zip(train, valid, strict=True)]
    again = fit(*both, 3, found.penalty)
    np.testing.assert_allclose(found.weights_dc, again.weights_dc, atol=1e-2)  # the search started elsewhere


def test_the_strongest_of_equally_good_penalties_is_chosen():
    """Every penalty below a certain one classifies these data without error."""
    found, tried = sweep(clouds(60, noise=0.05), clouds(60, noise=0.05, seed=1), 3)
    best = [penalty for penalty, accuracy in tried.items() if accuracy == 1]
    assert len(best) > 4 and found.penalty == max(best) > 1
    assert all(accuracy < 1 for penalty, accuracy in tried.items() if penalty > found.penalty)


def test_separable_classes_are_learnt():
    features, labels = clouds(90, noise=0.05)
    test, truth = clouds(50, noise=0.05, seed=3)
    for valid in (None, clouds(20, noise=0.05, seed=2)):
        assert (fit_probe((features, labels), valid, 3).logits(test).argmax(axis=1) == truth).all()
    one_each = draw_shots(labels, 1, seed=0)
    few = fit_probe((features[one_each], labels[one_each]), None, 3)
    assert few.penalty == 1
    assert (few.logits(test).argmax(axis=1) == truth).all()


def test_shots_and_what_is_held_out():
    labels = np.array([0, 1, 0, 1, 0, 0, 2, 2])
    rows = draw_shots(labels, 2, seed=0)
    assert labels[rows].tolist().count(0) == 2 and len(rows) == 6
    np.testing.assert_array_equal(rows, draw_shots(labels, 2, seed=0))
    assert any(draw_shots(labels, 2, seed=seed).tolist() != rows.tolist() for seed in range(1, 5))
    with pytest.raises(JclipError, match="class 1 has 2 training images, fewer than 3 shots"):
        draw_shots(labels, 3, seed=0)
    kept, out = held_out(labels)
    assert sorted([*kept, *out]) == list(range(8))
    assert sorted(labels[out]) == [0, 1, 2]
    assert held_out(np.array([0, 1]))[1].tolist() == []


def test_unusable_features_are_refused():
    with pytest.raises(JclipError, match="2 features and 1 classes"):
        fit(np.zeros((2, 3), np.float32), np.array([0]), 2, 1.0)
    with pytest.raises(JclipError, match="features that are not finite"):
        fit(np.full((1, 3), np.nan, np.float32), np.array([0]), 2, 1.0)
