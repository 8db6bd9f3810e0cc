import numpy as np
import pytest

from jclip.demo.baselines import pixel_distances, ranked_recalls
from jclip.errors import JclipError


def grey(*levels, side=32):
    return np.stack([np.full((side, side, 3), level, np.uint8) for level in levels])


def pixel_recalls(train, train_concepts, queries, query_concepts, candidates_c=None, ks=(1, 5, 10)):
    return ranked_recalls(pixel_distances(queries, train), train_concepts, query_concepts, candidates_c, ks)


# Two concepts, 5 and 9, with two images each.
TRAIN, CONCEPTS = grey(10, 100, 60, 200), np.array([5, 5, 9, 9])


def test_recalls_by_hand():
    # The nearest of concepts 5 and 9 to 0: 10, to 70: 60, to 85: 100, to 90: 100.
    found = pixel_recalls(TRAIN, CONCEPTS, grey(0, 70, 85, 90), np.array([5, 9, 9, 5]), ks=(1, 2))
    assert found == {"i2t_r1": 0.75, "i2t_r2": 1.0, "i2t_chance_r1": 0.5, "i2t_chance_r2": 1.0}


def test_equal_pictures_share_the_hit():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    train = np.concatenate([picture, picture, grey(0)])
    assert pixel_recalls(train, np.arange(3), picture, np.array([1]), ks=(1, 2))["i2t_r1"] == 0.5


def test_concepts_without_a_training_picture_come_last():
    found = pixel_recalls(
        TRAIN, CONCEPTS, grey(0, 0), np.array([1, 5]), candidates_c=np.array([1, 2, 5, 9]), ks=(1, 2, 3)
    )
    assert [found[f"i2t_r{k}"] for k in (1, 2, 3)] == [0.5, 0.5, 0.75]
    assert found["i2t_chance_r3"] == 0.75


def test_training_pictures_of_other_concepts_do_not_count():
    found = pixel_recalls(TRAIN, CONCEPTS, grey(60), np.array([5]), candidates_c=np.array([5]), ks=(1,))
    assert found["i2t_r1"] == 1


def test_pictures_of_other_sizes_are_resized():
    train = [*grey(10, 100, side=72), *grey(60, side=16)]
    queries, shown = list(grey(59, 99, side=64)), np.array([2, 1])
    assert pixel_recalls(train, np.arange(3), queries, shown, ks=(1,))["i2t_r1"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TRAIN, CONCEPTS[:3], TRAIN, CONCEPTS), "4 training images and 3 concepts: give one concept for each"),
        ((TRAIN, CONCEPTS, TRAIN[:0], CONCEPTS[:0]), "no images to compare"),
        (
            (TRAIN, CONCEPTS, TRAIN[:1], np.array([7])),
            "1 queries show a concept that is not a candidate, such as .*7.*: add it",
        ),
        ((TRAIN / 255, CONCEPTS, TRAIN, CONCEPTS), r"must be uint8 \(h, w, 3\), but one is float64 \(32, 32, 3\)"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(JclipError, match=message):
        pixel_recalls(*arguments)
