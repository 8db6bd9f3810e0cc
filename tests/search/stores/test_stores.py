"""Stores: what is pushed is found again as in the index, in each kind of database."""

import itertools
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.search.filters import Comparison, Filter, parse_comparison
from jclip.search.index import Index
from jclip.search.queries import parse_query
from jclip.search.searching import Searcher
from jclip.search.stores import pushing
from jclip.search.stores.addresses import parse_address
from jclip.search.stores.opening import open_store
from jclip.search.stores.pushing import Pushed, push
from jclip.search.stores.searching import StoreSearcher
from tests.search.indexes import FACTS, small_entry, write_small_index

DIM = 8
FACTS_8 = replace(FACTS, dim=DIM)
ROOT = "/photos"
METAS = [
    {},
    {"year": 2020, "tag": ["海滩", "beach"]},
    {"year": "2021", "tag": "beach", "ok": True},
    {"year": 2019.5, "tag": ["a", 3], "ok": False},
    {"year": "x2020", "tag": None, "deep": {"a": 1}},
    {"year": -3, "a\"b'}": "c\"d'{x}", "ok": "true"},
]
FILTERS = [
    None,
    Filter(kind="text"),
    Filter(folder=ROOT),
    Filter(folder=f"{ROOT}/b%_"),
    Filter(folder=os.fsdecode(f"{ROOT}/c".encode() + b"\xff/")),
    Filter(folder=f"{ROOT}/t.tar"),
    Filter(folder="/"),
    Filter(folder=f"{ROOT}/nothing"),
    Filter(since=datetime.fromtimestamp(1_000_010, UTC)),
    Filter(before=datetime.fromtimestamp(1_000_010, UTC)),
    Filter(since=datetime.fromtimestamp(1_000_004, UTC), before=datetime.fromtimestamp(1_000_010, UTC), kind="image"),
    *(
        Filter(meta=(parse_comparison(words),))
        for name in ("year", "tag", "ok", "none")
        for relation in ("=", "!=", "<", "<=", ">", ">=")
        for value in ("2020", "2019.5", "-3", "beach", "true", "海滩")
        for words in (f"{name}{relation}{value}",)
    ),
    Filter(meta=(Comparison("a\"b'}", "=", "c\"d'{x}"),)),
    Filter(folder=ROOT, meta=(parse_comparison("year>=2020"), parse_comparison("tag!=beach"))),
]


def entries(count):
    folders = [f"{ROOT}/a".encode(), f"{ROOT}/b%_".encode(), f"{ROOT}/c".encode() + b"\xff", f"{ROOT}/t.tar:".encode()]
    for number, folder, meta in zip(range(count), itertools.cycle(folders), itertools.cycle(METAS), strict=False):
        path = folder + f"{':' if folder.endswith(b':') else '/'}{number}\n🐈.jpg".encode()
        more = {}
        if folder.endswith(b":"):
            more = {"origin": "tar", "container": Path(f"{ROOT}/t.tar"), "position": 512 * number}
        if number % 5 == 0:
            more |= {"kind": "text", "text": f"一只猫 {number}\0", "width": None, "height": None, "hash": None}
        date = None if number % 7 == 0 else 1_000_000 + number
        # Each third entry is a copy of the one before.
        yield small_entry(2 * number + 1, number - (number % 3 == 2), path, meta=meta, date=date, **more)


def vectors(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, DIM))


def write(folder, count=40, facts=FACTS_8, **changes):
    all_entries = [changes.get(f"e{entry.id}", entry) for entry in entries(count)]
    return write_small_index(folder, vectors(count), [entry for entry in all_entries if entry], facts)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with Index.open(write(tmp_path_factory.mktemp("index") / "index")) as opened:
        yield opened


@pytest.fixture(params=["pgvector", "milvus"])
def open_table(request, tmp_path):
    """Returns a function (name of a table) -> store, in one database of each kind."""
    opened = []

    def opener(table="photos", **more):
        if request.param == "pgvector":
            postgres = request.getfixturevalue("postgres")
            if not opened:
                postgres.run("DROP TABLE IF EXISTS photos, whole, theirs")
            words = f"{postgres.address()}&table={table}"
        else:
            words = f"milvus:{tmp_path}/photos.db?table={table}"
        opened.append(open_store(replace(parse_address(words), **more)))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


def found(hits):
    return [(hit.entry.id, pytest.approx(hit.score, abs=1e-6)) for hit in hits]


def clean(entry):
    return replace(entry, text=entry.text and entry.text.replace("\0", "\ufffd"))


def test_what_is_pushed_is_found_as_in_the_index(index, open_table):
    store = open_table()
    assert store.facts() is None
    assert push(index, store) == Pushed(40, 0, 0)
    assert store.facts() == FACTS_8
    here, there = Searcher(index), StoreSearcher(store)
    for number, chosen in enumerate(FILTERS):
        query_d = vectors(1, seed=number)[0]
        expected = here.search(query_d, k=50, filter=chosen)
        hits = there.search(query_d, k=50, filter=chosen)
        assert [hit.entry for hit in hits] == [clean(hit.entry) for hit in expected], chosen
        assert found(hits) == found(expected)
    for offset, k in ((0, 1), (1, 7), (38, 5), (100, 3)):
        assert found(there.search(query_d, k, offset)) == found(here.search(query_d, k, offset))


def test_a_filter_chooses_some_of_the_entries(index):
    """So the comparison above is not one of empty lists."""
    counts = [len(Searcher(index).search(np.ones(DIM), k=50, filter=chosen)) for chosen in FILTERS]
    assert len(set(counts)) > 10 and sum(0 < count < 40 for count in counts) > 60


def test_a_push_writes_what_changed_and_deletes_what_has_gone(index, open_table, tmp_path):
    store = open_table()
    push(index, store)
    assert push(index, store) == Pushed(0, 0, 40)
    other = {e.id: e for e in entries(40)}
    changes = {
        "e3": replace(other[3], path=Path("/moved.jpg")),
        "e5": None,
        "e7": None,
        "e9": replace(other[9], meta={}),
    }
    with Index.open(write(tmp_path / "index", **changes)) as changed:
        source = pushing.source_of(store.address, index.folder)
        same = open_table(source=source)
        assert push(changed, same) == Pushed(2, 2, 36)
        query_d = vectors(1)[0]
        assert found(StoreSearcher(same).search(query_d, 50)) == found(Searcher(changed).search(query_d, 50))


def test_sources_are_kept_apart(index, open_table, tmp_path):
    store = open_table()
    push(index, store)
    with Index.open(write(tmp_path / "other", count=10)) as other:
        assert pushing.source_of(store.address, other.folder) == f"{os.uname().nodename}:{tmp_path}/other"
        assert push(other, store) == Pushed(10, 0, 0)
        assert push(index, store) == Pushed(0, 0, 40)
        query_d = vectors(40)[12]
        assert len(StoreSearcher(store).search(query_d, 100)) == 50
        alone = open_table(source=pushing.source_of(store.address, index.folder))
        assert found(StoreSearcher(alone).search(query_d, 50)) == found(Searcher(index).search(query_d, 50))
        with Index.open(write(tmp_path / "none", count=1, e1=None)) as none:
            assert push(none, open_table(source=pushing.source_of(store.address, other.folder))) == Pushed(0, 10, 0)
    assert found(StoreSearcher(store).search(vectors(1)[0], 50)) == found(Searcher(index).search(vectors(1)[0], 50))


def test_an_interrupted_push_goes_on(index, open_table, monkeypatch):
    monkeypatch.setattr(pushing, "_ROWS", 7)
    store, whole = open_table(), open_table("whole")
    push(index, whole)
    upsert, calls = store.upsert, itertools.count(1)

    def interrupted(rows):
        if next(calls) == 4:
            raise KeyboardInterrupt
        upsert(rows)

    monkeypatch.setattr(store, "upsert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        push(index, store)
    monkeypatch.undo()
    assert push(index, store) == Pushed(19, 0, 21)
    source = pushing.source_of(store.address, index.folder)
    for one, other in zip(store.states(source), whole.states(source), strict=True):
        np.testing.assert_array_equal(one, other)


class Stand:
    def __init__(self, identity):
        self.identity = identity

    def encode_text(self, texts):
        return np.ones((len(texts), DIM), np.float32) / DIM**0.5


def test_tables_of_another_model_are_refused(index, open_table, tmp_path):
    store = open_table()
    with pytest.raises(JclipError, match="table photos: there is no such table; push an index: jclip index"):
        StoreSearcher(store)
    push(index, store)
    with pytest.raises(JclipError, match="was made with another model .small, from /models/small.: use that one"):
        StoreSearcher(store, Stand("1" * 64))
    for facts, message in (
        (
            replace(FACTS_8, model_identity="1" * 64, model_name="other"),
            "of another model .small., with 8 numbers each",
        ),
        (
            replace(FACTS_8, orientation="ignore"),
            "EXIF orientation was applied, and in this index it was ignored: choose",
        ),
    ):
        with Index.open(write(tmp_path / "other", facts=facts)) as other, pytest.raises(JclipError, match=message):
            push(other, store)
    assert push(index, store) == Pushed(0, 0, 40)
    assert len(StoreSearcher(store, Stand(FACTS_8.model_identity)).search(parse_query("猫"), 3)) == 3


def test_tables_of_other_programs_are_refused(open_table, postgres, index):
    store = open_table("theirs")
    if store.address.kind == "pgvector":
        postgres.run("CREATE TABLE theirs (id int)")
    else:
        store._client.create_collection("theirs", dimension=4)
    for use in (store.facts, lambda: push(index, store), lambda: StoreSearcher(store)):
        with pytest.raises(JclipError, match="table theirs: jclip did not make this table: choose another name with"):
            use()


def test_an_approximate_index_finds_nearly_the_same(open_table, tmp_path):
    rng, count = np.random.default_rng(1), 400
    folder = write_small_index(
        tmp_path / "index",
        rng.normal(size=(count, DIM)),
        [small_entry(i, i, f"/{i % 4}/{i}") for i in range(count)],
        FACTS_8,
    )
    with Index.open(folder) as index:
        store = open_table()
        push(index, store)
        with pytest.raises(
            JclipError, match="photos has no approximate index: run jclip index INDEX --to ADDRESS --ann"
        ):
            StoreSearcher(store, ann=True)
        for _ in range(2):
            store.build()
            assert store.is_approximate()
        recalls = []
        for chosen in (None, Filter(folder="/3")):
            for query_d in rng.normal(size=(12, DIM)):
                expected = Searcher(index).search(query_d, 10, filter=chosen)
                hits = StoreSearcher(store, ann=True).search(query_d, 10, filter=chosen)
                assert len(hits) == 10
                recalls.append(len({hit.entry.id for hit in hits} & {hit.entry.id for hit in expected}) / 10)
        assert np.mean(recalls) > 0.98
        assert push(index, store) == Pushed(0, 0, count)


def test_exact_search_beside_an_approximate_index(index, open_table):
    store = open_table()
    push(index, store)
    store.build()
    searcher, query_d = StoreSearcher(store), vectors(1)[0]
    if store.address.kind == "pgvector":
        assert found(searcher.search(query_d, 9)) == found(Searcher(index).search(query_d, 9))
    else:
        with pytest.raises(JclipError, match="its approximate index has replaced the exact one"):
            searcher.search(query_d, 9)
