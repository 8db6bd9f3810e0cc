from itertools import permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.evaluate.metrics import recall as metric
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.metrics.recall import chance, expected_hits, query_hits, recall, topk

ORDER = np.arange(4)


def on_a_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_by_hand():
    # Every image is nearest to its own text. The text at 68 belongs to 40, but is nearer to 90, and 40 comes second.
    images, texts = on_a_circle(0, 40, 90, 180), on_a_circle(10, 100, 160, 68)
    found = recall(images, texts, ORDER, np.array([0, 2, 3, 1]), ks=(1, 2))
    assert found == {
        "t2i_r1": 0.75,
        "t2i_r2": 1.0,
        "i2t_r1": 1.0,
        "i2t_r2": 1.0,
        "mean_recall": (0.75 + 1 + 1 + 1) / 4,
        "t2i_chance_r1": 0.25,
        "t2i_chance_r2": 0.5,
        "i2t_chance_r1": 0.25,
        "i2t_chance_r2": 0.5,
    }


def test_row_numbers_are_the_default_keys():
    images, texts = on_a_circle(0, 40, 90), on_a_circle(10, 100, 85)
    assert recall(images, texts, ks=(1,)) == recall(images, texts, np.arange(3), np.arange(3), ks=(1,))
    assert recall(images, texts[:1], ks=(1,))["t2i_r1"] == 1  # image 0 alone has a text


def test_any_positive_is_a_hit():
    # One image with two captions, one caption with two images.
    images, texts = on_a_circle(0, 90, 100), on_a_circle(95, 5, 50)
    image_keys, text_keys = np.array([7, 8, 8]), np.array([8, 7, 7])
    found = recall(images, texts, image_keys, text_keys, ks=(1, 2))
    assert (found["t2i_r1"], found["i2t_r1"]) == (pytest.approx(2 / 3), 1)
    # Captions at 95, 5, 50 have 2, 1, 1 positives among 3 images; images have 2, 1, 1 among 3 captions.
    assert found["t2i_chance_r1"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert found["i2t_chance_r2"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_a_query_without_a_positive_is_not_scored():
    images, texts = on_a_circle(0, 40, 90), on_a_circle(1)
    assert recall(images, texts, np.arange(3), np.array([0]), ks=(1,))["i2t_r1"] == 1
    with pytest.raises(JclipError, match="no image has a text that belongs to it: nothing can be scored"):
        recall(images, texts, np.arange(3), np.array([9]))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3e-30, 1e30])
@pytest.mark.parametrize("width", [1, 7, 128])
def test_equal_features_score_chance(value, width):
    image_keys, text_keys = np.arange(37) // 2, np.arange(53) % 19
    constant = [np.full((n, width), value, np.float32) for n in (37, 53)]
    found = recall(*constant, image_keys, text_keys, ks=(1, 5, 50))
    for way in ("t2i", "i2t"):
        for k in (1, 5, 50):
            assert found[f"{way}_r{k}"] == found[f"{way}_chance_r{k}"]
    assert found["t2i_r1"] < 0.06


def test_scores_that_are_not_numbers_are_the_lowest():
    scores = np.array([[np.nan, 0.1, 0.2, np.nan]])
    assert expected_hits(scores, np.array([[True, False, False, False]]), (1, 2, 3, 4)).tolist() == [[0, 0, 0.5, 1]]
    nothing = np.full((3, 10), np.nan)
    positive = np.eye(3, 10, dtype=bool)
    np.testing.assert_array_equal(expected_hits(nothing, positive, (1, 5)), chance(positive, (1, 5)))


def test_features_that_are_not_finite_are_refused():
    images, texts = on_a_circle(0, 40, 90), on_a_circle(0, 40, 90)
    images[1, 0] = np.nan
    texts[:, 1] = np.inf
    with pytest.raises(JclipError, match="image features: 1 of 3 rows are not finite: the model has diverged"):
        recall(images, on_a_circle(0, 40, 90), np.arange(3), np.arange(3))
    with pytest.raises(JclipError, match="gallery features: 3 of 3 rows are not finite"):
        topk(on_a_circle(0), texts, 1)


@pytest.mark.parametrize(
    ("shapes", "keys", "message"),
    [
        (((3, 2), (3, 4)), (3, 3), "image features are 2 wide, text ones 4: encode both with the same model"),
        (((3, 2), (4, 2)), (3, 3), r"4 rows of text features need as many keys: given \(3,\)"),
        (((0, 2), (4, 2)), (0, 4), r"image features must be \(rows, width\), at least one row: given \(0, 2\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, keys, message):
    with pytest.raises(JclipError, match=message):
        recall(*map(np.ones, shapes), *map(np.arange, keys))


def test_a_k_larger_than_the_gallery_takes_all_of_it():
    found = recall(on_a_circle(0, 90), on_a_circle(90, 0), np.arange(2), np.arange(2), ks=(1, 2, 10))
    assert [found[f"t2i_r{k}"] for k in (1, 2, 10)] == [0, 1, 1]
    assert [found[f"t2i_chance_r{k}"] for k in (1, 2, 10)] == [0.5, 1, 1]


@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=1, max_size=5),
    positives=st.sets(st.integers(0, 4), min_size=1),
    k=st.integers(1, 6),
)
def test_expected_hits_is_the_mean_over_all_orders_of_equals(scores, positives, k):
    positive = np.array([i in positives for i in range(len(scores))])
    lowest = [-np.inf if np.isnan(score) else score for score in scores]
    orders = list(permutations(range(len(scores))))
    hits = [positive[sorted(order, key=lambda i: -lowest[i])[:k]].any() for order in orders]
    assert expected_hits(np.array([scores]), positive[None], (k,)).item() == pytest.approx(np.mean(hits))


@given(gallery=st.integers(1, 40), positives=st.integers(0, 40), k=st.integers(1, 50))
def test_chance_is_hypergeometric(gallery, positives, k):
    positives, drawn = min(positives, gallery), min(k, gallery)
    positive = np.arange(gallery)[None] < positives
    expected = 1 - comb(gallery - positives, drawn) / comb(gallery, drawn)
    assert chance(positive, (k,)).item() == pytest.approx(expected, abs=1e-12)


def test_the_block_size_does_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(23, 8)), rng.normal(size=(31, 8)), np.arange(23) % 11, np.arange(31) % 13
    whole, nearest = recall(*arguments), topk(*arguments[:2], 4)
    monkeypatch.setattr(metric, "_BLOCK", 64)
    assert recall(*arguments) == pytest.approx(whole, abs=1e-12)
    np.testing.assert_array_equal(topk(*arguments[:2], 4)[0], nearest[0])


def test_random_features_score_near_the_computed_chance():
    rng = np.random.default_rng(0)
    positives = Positives.from_keys(np.arange(4000) % 50, np.arange(50))
    found = query_hits(rng.normal(size=(4000, 3)), rng.normal(size=(50, 3)), positives).recall()
    for k in (1, 5, 10):
        assert found[f"chance_r{k}"] == pytest.approx(k / 50)
        assert found[f"r{k}"] == pytest.approx(k / 50, abs=0.02)  # 4 standard errors at most


def test_topk_by_hand():
    indices, cosines = topk(on_a_circle(0, 90), 3 * on_a_circle(60, 0, 90, 0), 3)
    assert indices.tolist() == [[1, 3, 0], [2, 0, 1]]
    np.testing.assert_allclose(cosines, [[1, 1, 0.5], [1, np.sqrt(3) / 2, 0]], atol=1e-6)
    assert topk(on_a_circle(0), on_a_circle(0, 1), 9)[0].shape == (1, 2)
