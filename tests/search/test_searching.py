"""Search in indexes of two-dimensional vectors, worked out by hand, and in larger ones beside faiss."""

import math
from dataclasses import replace

import faiss
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.search import scoring
from jclip.search.filters import Filter
from jclip.search.index import Index
from jclip.search.queries import parse_query
from jclip.search.scoring import Best, Scorer
from jclip.search.searching import Hit, Searcher
from tests.search.indexes import FACTS, small_entry, write_small_index

FACTS_2 = replace(FACTS, dim=2)


def at(degrees):
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


class Stand:
    """Model whose texts are angles."""

    identity = FACTS.model_identity

    def encode_text(self, texts):
        return np.array([at(float(text)) for text in texts], np.float32)

    def encode_image(self, pictures, *, orientation=None):
        raise AssertionError("no images here")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Vectors at 0°, 30°, 60°, 90°, 180° and again 30°; that of 60° is unused, that of 90° has three copies."""
    entries = [
        small_entry(1, 0, b"/a/0.jpg"),
        small_entry(2, 1, b"/a/30.jpg"),
        small_entry(7, 3, b"/b/90.jpg"),
        small_entry(4, 3, b"/a/90 copy.jpg"),
        small_entry(5, 3, b"/c/90 copy.jpg"),
        small_entry(6, 4, b"/b/180.jpg"),
        small_entry(9, 5, b"/b/30 again.jpg"),
    ]
    vectors = [at(degrees) for degrees in (0, 30, 60, 90, 180, 30)]
    folder = write_small_index(tmp_path_factory.mktemp("small") / "index", vectors, entries, FACTS_2)
    with Index.open(folder) as opened:
        yield opened


def found(hits):
    return [hit.entry.id for hit in hits]


def test_hits_are_in_the_order_of_their_cosines(index):
    hits = Searcher(index, Stand()).search(parse_query("0"), k=100)
    assert found(hits) == [1, 2, 9, 4, 5, 7, 6]
    np.testing.assert_allclose([hit.score for hit in hits], [1, 3**0.5 / 2, 3**0.5 / 2, 0, 0, 0, -1], atol=5e-4)
    assert found(Searcher(index).search(np.array([3.0, 0.0]), k=100)) == found(hits)
    assert found(Searcher(index, Stand()).search(parse_query("0 + 90"), k=1)) == [2]  # 45°
    assert found(Searcher(index, Stand()).search(parse_query("- 0"), k=1)) == [6]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7, 50])
@pytest.mark.parametrize("condition", [None, Filter(folder="/b"), Filter(folder="/a"), Filter(folder="/nowhere")])
def test_pages_follow_each_other(index, k, condition):
    searcher = Searcher(index)
    everything = found(searcher.search(at(10), k=100, filter=condition))
    pages = [searcher.search(at(10), k=k, offset=offset, filter=condition) for offset in range(0, 8, k)]
    assert [id for page in pages for id in found(page)] == everything
    assert all(len(page) <= k for page in pages)
    expected = {None: 7, "/b": 3, "/a": 3, "/nowhere": 0}[condition and condition.folder]
    assert len(everything) == expected


def test_a_filter_hides_copies_in_other_folders(index):
    searcher = Searcher(index)
    assert found(searcher.search(at(90), k=9, filter=Filter(folder="/b"))) == [7, 9, 6]
    assert found(searcher.search(at(90), k=9, filter=Filter(folder="/c"))) == [5]


def test_similar_entries_without_the_entry_itself(index):
    searcher = Searcher(index)
    assert found(searcher.similar(2, k=3)) == [9, 1, 4]
    assert found(searcher.similar(5, k=2)) == [4, 7]  # its copies
    assert found(searcher.similar(5, k=2, offset=2)) == [2, 9]
    assert found(searcher.similar(1, k=9, filter=Filter(folder="/b"))) == [9, 7, 6]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"k": 0}, "k is 0, but must be a whole number, 1 or more"),
        ({"k": 2.5}, "k is 2.5"),
        ({"offset": -1}, "offset is -1"),
    ],
)
def test_wrong_pages(index, options, told):
    for call in (lambda: Searcher(index).search(at(0), **options), lambda: Searcher(index).similar(1, **options)):
        with pytest.raises(JclipError, match=told):
            call()


@pytest.mark.parametrize("vector", [(1,), (1, 2, 3), (0, 0), (1, math.nan), ((1, 0),), "no", [[1], [1, 2]]])
def test_wrong_vectors(index, vector):
    with pytest.raises(JclipError, match="must be 2 finite numbers, not all of them 0"):
        Searcher(index).search(vector)


def test_other_errors(index):
    with pytest.raises(JclipError, match="has no model"):
        Searcher(index).search(parse_query("0"))
    with pytest.raises(JclipError, match="no entry 3"):
        Searcher(index).similar(3)
    other = Stand()
    other.identity = "1" * 64
    with pytest.raises(JclipError, match="another model"):
        Searcher(index, other)


def test_an_empty_index(tmp_path):
    with Index.open(write_small_index(tmp_path / "index", np.zeros((0, 2)), [], FACTS_2)) as empty:
        searcher = Searcher(empty)
        assert searcher.search(at(0)) == [] and searcher.near_duplicates(0.5) == []
        assert searcher.search(at(0), filter=Filter(folder="/")) == []


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """3,000 vectors in 40 clusters; each is an entry, except every seventh."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((40, 64))[random.integers(40, size=3000)] + 0.7 * random.standard_normal(
        (3000, 64)
    )
    entries = [small_entry(number + 1, number, f"/{number % 9}/{number}") for number in range(3000) if number % 7]
    folder = write_small_index(tmp_path_factory.mktemp("big") / "index", vectors, entries, replace(FACTS, dim=64))
    with Index.open(folder) as opened:
        yield opened


@pytest.fixture(params=[64, 1000, 1 << 20])
def rows(request, monkeypatch):
    monkeypatch.setattr(scoring, "_CPU_BLOCK", request.param * 64)
    return request.param


@pytest.mark.parametrize("condition", [None, Filter(folder="/3"), Filter(folder="/"), Filter(kind="text")])
def test_search_equals_faiss(clustered, rows, condition):
    """faiss's flat index has the same vectors; the unused and the filtered ones are left out of it."""
    numbers = clustered.select(condition)
    flat = faiss.IndexIDMap(faiss.IndexFlatIP(64))
    flat.add_with_ids(clustered.vectors_at(numbers).astype(np.float32), numbers)
    searcher = Searcher(clustered)
    queries = np.random.default_rng(1).standard_normal((4, 64))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    k = min(50, len(numbers))
    if not k:
        assert searcher.search(queries[0], filter=condition) == []
        return
    for query, scores, ids in zip(queries, *flat.search(queries.astype(np.float32), k), strict=True):
        hits = searcher.search(query, k=50, filter=condition)
        assert [hit.entry.vector for hit in hits] == ids.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-6)


def test_equal_vectors_are_in_the_order_of_their_numbers(tmp_path, rows):
    """In whatever place of a block they are; also with a filter, and at the edge of a page."""
    vectors = np.random.default_rng(2).standard_normal((2500, 64))
    vectors[5::10] = vectors[5]
    entries = [small_entry(number, number, f"/{number % 10}/{number}") for number in range(2500)]
    with Index.open(write_small_index(tmp_path / "index", vectors, entries, replace(FACTS, dim=64))) as index:
        searcher = Searcher(index)
        for start in (0, 7, 200):
            hits = searcher.search(vectors[5], k=30, offset=start)
            assert found(hits) == [5 + 10 * (start + number) for number in range(30)]
            assert len({hit.score for hit in hits}) == 1
        assert found(searcher.search(vectors[5], k=3, offset=9, filter=Filter(folder="/5"))) == [95, 105, 115]


def test_an_accelerator_keeps_the_blocks(clustered, monkeypatch):
    expected = Scorer(clustered, 64).best(np.ones(64, np.float32), 20)
    monkeypatch.setattr(scoring.jax, "default_backend", lambda: "gpu")
    device = type("Device", (), {"memory_stats": lambda self: {"bytes_limit": self.limit}})
    for limit, keeps in ((3000 * 64 * 2 * 2, True), (3000 * 64 * 2 * 2 - 2, False)):
        device.limit = limit
        monkeypatch.setattr(scoring.jax, "devices", lambda: [device()])
        scorer = Scorer(clustered, 64)
        for _ in range(2):
            numbers, scores = scorer.best(np.ones(64, np.float32), 20)
            assert numbers.tolist() == expected[0].tolist() and scores.tolist() == expected[1].tolist()
        assert (scorer._resident is not None) == keeps


def test_damaged_vectors_are_never_found(tmp_path):
    vectors = np.array([at(degrees) for degrees in range(90)])
    entries = [small_entry(number, number, f"/{number}") for number in range(90)]
    folder = write_small_index(tmp_path / "index", vectors, entries, FACTS_2)
    stored = np.load(folder / "segments" / "000000.npy")
    stored[[3, 50, 70]] = [(np.nan, 0), (np.inf, 0), (-np.inf, np.inf)]
    np.save(folder / "segments" / "000000.npy", stored)
    expected = [number for number in range(90) if number not in (3, 50, 70)]
    with Index.open(folder) as index:
        searcher = Searcher(index)
        assert found(searcher.search(at(0), k=5)) == expected[:5]
        for query in (at(0), at(180), at(90), at(-90)):
            hits = searcher.search(query, k=99)
            assert sorted(found(hits)) == expected and all(math.isfinite(hit.score) for hit in hits)
        assert found(searcher.search(at(0), k=99)) == expected
        with pytest.raises(JclipError, match="the vector of entry 50 is damaged"):
            searcher.similar(50)
        groups = searcher.near_duplicates(math.cos(math.radians(4.5)))
    assert sum(map(len, groups)) >= 80 and not {3, 50, 70} & {id for group in groups for id in found(group)}


def test_a_hit_as_json():
    hit = Hit(small_entry(1, 0, "/a", meta={"a": [math.nan, {"b": math.inf}], "c": 1.5}), 0.5)
    assert hit.record()["meta"] == {"a": [None, {"b": None}], "c": 1.5} and hit.record()["score"] == 0.5


def test_the_best_of_many_blocks():
    random = np.random.default_rng(3)
    scores = random.standard_normal(5000).astype(np.float32)
    best = Best(10)
    for start in range(0, 5000, 250):
        best.add(np.arange(start, start + 250), scores[start : start + 250])
    assert set(np.argsort(-scores)[:10]) <= set(best.numbers.tolist()) and len(best.numbers) < 15
