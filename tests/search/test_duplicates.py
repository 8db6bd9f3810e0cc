"""Near duplicates: groups worked out by hand, and beside a plain loop in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.search import duplicates
from jclip.search.duplicates import groups_of
from jclip.search.filters import Filter
from jclip.search.index import Index
from jclip.search.searching import Searcher
from tests.search.indexes import FACTS, small_entry, write_small_index

COS_20, COS_10 = math.cos(math.radians(20)), math.cos(math.radians(10))


class Table:
    def __init__(self, vectors_nd):
        self.vectors_nd = np.asarray(vectors_nd)

    def vectors_at(self, numbers):
        return self.vectors_nd[numbers]


def circle(*degrees):
    return [(math.cos(math.radians(each)), math.sin(math.radians(each))) for each in degrees]


def plain(vectors_nd, threshold):
    """Returns each vector's group, as the docstring of the module describes."""
    vectors_nd = vectors_nd.astype(np.float64)
    vectors_nd /= np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    begins, first = [], []
    for number, vector in enumerate(vectors_nd):
        cosines = [vectors_nd[other] @ vector for other in begins]
        if begins and max(cosines) >= threshold:
            first.append(begins[int(np.argmax(cosines))])
        else:
            begins.append(number)
            first.append(number)
    return first


@pytest.mark.parametrize(("rows", "columns"), [(2048, 8192), (64, 96), (16, 16), (1, 1)])
def test_groups_equal_a_plain_loop(rows, columns, monkeypatch):
    monkeypatch.setattr(duplicates, "_ROWS", rows)
    monkeypatch.setattr(duplicates, "_COLUMNS", columns)
    random = np.random.default_rng(0)
    number = 40 if rows == 1 else 300
    centres = random.standard_normal((60, 16))[random.integers(number // 5, size=number)]
    vectors_nd = (centres + 0.25 * random.standard_normal((number, 16))).astype(np.float16)
    told = []
    first, cosines = groups_of(Table(vectors_nd), np.arange(number), 0.9, lambda *words: told.append(words))
    expected = plain(vectors_nd, 0.9)
    assert first.tolist() == expected and number / 6 < len(set(expected)) < number / 2
    units = vectors_nd.astype(np.float64) / np.linalg.norm(vectors_nd.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, (units * units[first]).sum(axis=1), atol=1e-6)
    assert told[-1] == (number, number)


def test_chains_are_not_one_group():
    first, _ = groups_of(Table(circle(*range(0, 90, 10))), np.arange(9), COS_20)
    assert first.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6]


def test_a_vector_joins_the_nearest_group():
    first, cosines = groups_of(Table(circle(0, 30, 18)), np.arange(3), COS_20)
    assert first.tolist() == [0, 1, 1]
    np.testing.assert_allclose(cosines, [1, 1, math.cos(math.radians(12))], atol=1e-6)


def test_equal_directions_of_another_length_have_cosine_1():
    """As rounding to float16 leaves them."""
    first, cosines = groups_of(Table([(1.0, 0), (0.9995, 0), (0, 0)]), np.arange(3), 1.0)
    assert first.tolist() == [0, 0, 2] and cosines.max() == 1


@pytest.fixture
def index(tmp_path):
    """Vectors at 0°, 9°, 40°, 44°, 48°, 90° and 9°; that of 44° is unused, that of 90° has two copies."""
    numbers = [0, 1, 2, 4, 5, 5, 6]
    entries = [small_entry(id, number, f"/{'ab'[id % 2]}/{id}") for id, number in enumerate(numbers, 10)]
    vectors = circle(0, 9, 40, 44, 48, 90, 9)
    with Index.open(write_small_index(tmp_path / "index", vectors, entries, replace(FACTS, dim=2))) as opened:
        yield opened


def groups(found):
    return [[hit.entry.id for hit in group] for group in found]


def test_near_duplicates_of_an_index(index):
    searcher = Searcher(index)
    found = searcher.near_duplicates(COS_10)
    assert groups(found) == [[10, 11, 16], [12, 13], [14, 15]]
    np.testing.assert_allclose([hit.score for hit in found[0]], [1, *[math.cos(math.radians(9))] * 2], atol=1e-3)
    assert [hit.score for hit in found[2]] == [1, 1]
    assert groups(searcher.near_duplicates(1.0)) == [[11, 16], [14, 15]]  # copies, and equal vectors
    assert groups(searcher.near_duplicates(COS_10, k=1, offset=1)) == [[12, 13]]
    assert searcher.near_duplicates(COS_10, k=5, offset=3) == []
    assert groups(searcher.near_duplicates(COS_10, filter=Filter(folder="/a"))) == [[10, 16]]
    assert searcher.near_duplicates(COS_10, filter=Filter(folder="/nowhere")) == []


def test_the_grouping_is_kept_for_the_next_page(index, monkeypatch):
    calls = []
    monkeypatch.setattr("jclip.search.searching.groups_of", lambda *words: calls.append(words) or groups_of(*words))
    searcher = Searcher(index)
    for offset in (0, 1):
        searcher.near_duplicates(COS_10, k=1, offset=offset)
    assert len(calls) == 1
    searcher.near_duplicates(COS_20)
    assert len(calls) == 2


@pytest.mark.parametrize("threshold", [0, -1, 1.01, math.nan])
def test_wrong_thresholds(index, threshold):
    with pytest.raises(JclipError, match=r"threshold is .*, but must be a number above 0, 1 at most"):
        Searcher(index).near_duplicates(threshold)
