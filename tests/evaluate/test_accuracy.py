"""Figures of classification by hand, and against scikit-learn where ties do not matter."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_recall_curve, roc_auc_score, top_k_accuracy_score

from jclip.evaluate.metrics.accuracy import confusion, map_11_points, mean_per_class, roc_auc, top_hits


@pytest.fixture
def scored():
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 7, 200)
    scores = draw.normal(size=(200, 7))
    scores[np.arange(200), classes] += 1
    return scores, classes, np.eye(7, dtype=bool)[classes]


def test_by_hand():
    scores = np.array([[3, 2, 1], [1, 3, 2], [3, 2, 1], [1, 1, 0]])
    truth = np.array([0, 2, 0, 1])
    hits = top_hits(scores, np.eye(3, dtype=bool)[truth], (1, 2))
    assert hits.tolist() == [[1, 1], [0, 1], [1, 1], [0.5, 1]]  # two equal scores: half a hit
    assert mean_per_class(hits[:, 0], truth) == pytest.approx((1 + 0.5 + 0) / 3)
    assert mean_per_class(np.array([1, 0]), np.array([0, 3])) == 0.5  # classes 1 and 2 have no image
    assert confusion(scores, truth).tolist() == [[2, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_accuracies_equal_scikit_learns(scored):
    scores, classes, truth = scored
    hits = top_hits(scores, truth, (1, 5))
    for column, k in enumerate((1, 5)):
        assert hits[:, column].mean() == pytest.approx(top_k_accuracy_score(classes, scores, k=k))
    found = mean_per_class(hits[:, 0], classes)
    assert found == pytest.approx(balanced_accuracy_score(classes, scores.argmax(axis=1)))


@pytest.mark.parametrize("digits", [None, 1, 0])  # rounding makes many scores equal
def test_roc_auc_equals_scikit_learns(scored, digits):
    scores, _, truth = scored
    scores = scores if digits is None else scores.round(digits)
    for number in range(7):
        assert roc_auc(scores[:, number], truth[:, number]) == pytest.approx(
            roc_auc_score(truth[:, number], scores[:, number])
        )


@pytest.mark.parametrize("digits", [None, 1, 0])
def test_11_points_as_from_scikit_learn_s_curve(scored, digits):
    scores, classes, truth = scored
    truth[np.arange(200), (classes + 2) % 7] |= np.arange(200) % 3 == 0  # several classes per image
    scores = scores if digits is None else scores.round(digits)
    averages = []
    for number in range(7):
        precision, recall, _ = precision_recall_curve(truth[:, number], scores[:, number])
        # The curve ends in (1, 0), which no threshold reaches.
        points = [precision[:-1][recall[:-1] >= at / 10 - 1e-12].max() for at in range(11)]
        averages.append(np.mean(points))
    assert map_11_points(scores, truth) == pytest.approx(np.mean(averages))


def test_11_points_by_hand():
    # Ranks 1 and 3 are right: precision 1 up to recall 0.5, 2/3 up to 1.
    truth = np.array([[True], [False], [True], [False]])
    assert map_11_points(np.array([[4.0], [3], [2], [1]]), truth) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert map_11_points(np.ones((4, 1)), truth) == 0.5  # all equal: the share of right ones


def test_undefined_figures_are_refused():
    with pytest.raises(ValueError, match="no image shows class 1"):
        map_11_points(np.ones((2, 2)), np.array([[True, False]] * 2))
    with pytest.raises(ValueError, match="all images are of one class"):
        roc_auc(np.ones(3), np.ones(3, bool))
