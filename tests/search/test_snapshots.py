"""Snapshots of a new index: beginnings of the index, which stays byte-identical."""

from functools import partial

import numpy as np
import pytest

from jclip.search import encoding, snapshots
from jclip.search.embedding import embed
from jclip.search.index import Index
from jclip.search.progress import Meter
from tests.search.embedders import Cells, encoded
from tests.search.test_embedding import fill
from tests.search.test_updating import contents


@pytest.fixture
def sources(tmp_path):
    """Images, with a damaged one and a copy near the beginning, and texts."""
    images = {f"{n:02}.png": encoded(n) for n in range(12)} | {"01 damaged.png": b"x", "02 copy.png": encoded(0)}
    (tmp_path / "texts.txt").write_text("a\nb\n", encoding="utf-8")
    return [fill(tmp_path / "photos", images), tmp_path / "texts.txt"]


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(snapshots, "_SECONDS", 0)
    monkeypatch.setattr(snapshots, "_RARELY", 0)
    monkeypatch.setattr(encoding, "Meter", partial(Meter, interval=0))


def rows_of(index):
    return [(entry.id, entry.vector, entry.path) for entry in index.all_entries()]


def test_snapshots_are_beginnings_of_the_index(tmp_path, sources, always):
    seen, done = [], []

    def opened(folder):
        with Index.open(folder) as index:
            seen.append((rows_of(index), np.array(index.vectors_at(range(index.vectors)))))

    index = tmp_path / "index"
    embed(Cells(), sources, index, workers=0, batch_size=3, snapshot=opened, watch=done.append)
    embed(Cells(), sources, tmp_path / "plain", workers=0, batch_size=3)
    assert contents(index) == contents(tmp_path / "plain")
    assert not (tmp_path / ".index.unfinished").exists() and done[-1].done == 16
    with Index.open(index) as whole:
        rows, vectors_nd = rows_of(whole), whole.vectors_at(range(whole.vectors))
    lengths = [len(found) for found, _ in seen]
    assert lengths == sorted(set(lengths)) and len(lengths) >= 3 and lengths[0] >= 3 and lengths[-1] < len(rows) == 15
    for found, found_nd in seen:
        assert found == rows[: len(found)]
        np.testing.assert_array_equal(found_nd, vectors_nd[: len(found_nd)])


def test_an_index_that_is_updated_has_none(tmp_path, sources, always):
    embed(Cells(), sources[1:], tmp_path / "index", workers=0)
    never = partial(pytest.fail, "no snapshot is needed")
    embed(Cells(), sources, tmp_path / "index", update=True, workers=0, batch_size=3, snapshot=never)
    embed(Cells(), sources, tmp_path / "other", dry_run=True, workers=0, batch_size=3, snapshot=never)


def test_snapshots_become_rare(tmp_path, sources, monkeypatch):
    monkeypatch.setattr(encoding, "Meter", partial(Meter, interval=0))
    seen = []
    embed(Cells(), sources, tmp_path / "index", workers=0, batch_size=1, snapshot=seen.append)
    assert seen == []  # it took less than five seconds
    monkeypatch.setattr(snapshots, "_SECONDS", 0)
    monkeypatch.setattr(snapshots, "_RARELY", 10**9)
    embed(Cells(), sources, tmp_path / "second", workers=0, batch_size=1, snapshot=seen.append)
    assert len(seen) == 1
