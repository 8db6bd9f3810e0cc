"""Index: what is written is read back; damaged files raise JclipError."""

import json
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.search import segments
from jclip.search.index import Index
from tests.search.indexes import FACTS, small_entry, write_small_index

VECTORS = [[1, 0, 0, 0], [0, 3, 4, 0], [0, 0, 0, 2], [1, 1, 1, 1], [0, 1, 0, 0]]
ODD = b"/pictures/\xff\xfe \n\xf0\x9f\x90\x88.jpg"
ENTRIES = [
    small_entry(1, 0, "/pictures/a.jpg"),
    small_entry(2, 1, ODD, meta={"camera": "é", "n": [1, 2]}),
    small_entry(3, 1, "/pictures/copy.jpg"),
    small_entry(5, 4, "/t.tar::m.png", origin="tar", container=Path("/t.tar"), position=512),
    small_entry(9, 3, "/texts.txt::7", kind="text", text="一只猫", origin="text", container=Path("/texts.txt")),
]


@dataclass
class Where:
    sql: str
    values: tuple = ()

    def where(self):
        return self.sql, self.values


def _read(folder):
    with Index.open(folder) as index:
        list(index.all_entries())
        index.entries_of(index.select())
        index.skipped()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.search.writing.ROWS", 2)
    return write_small_index(tmp_path / "index", VECTORS, ENTRIES)


def test_everything_is_read_back(folder):
    with Index.open(folder) as index:
        assert (len(index), index.vectors, index.facts) == (5, 5, FACTS)
        assert index.entries([9, 1, 5]) == [ENTRIES[4], ENTRIES[0], ENTRIES[3]]
        assert list(index.all_entries()) == ENTRIES
        assert os.fsencode(index.entry(2).path) == ODD
        assert index.entries_of([1, 2, 4]) == {1: ENTRIES[1:3], 2: [], 4: [ENTRIES[3]]}
        assert index.skipped() == []


def test_vectors_are_in_segments(folder):
    expected_nd = np.float16([[1, 0, 0, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1], [0.5] * 4, [0, 1, 0, 0]])
    assert sorted(os.listdir(folder / "segments")) == ["000000.npy", "000001.npy", "000002.npy"]
    index = Index.open(folder)
    blocks = list(index.blocks(rows=64))
    assert [first for first, _ in blocks] == [0, 2, 4]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected_nd)
    assert [(first, len(block)) for first, block in index.blocks(rows=1)] == [(number, 1) for number in range(5)]
    np.testing.assert_array_equal(index.vector(3), expected_nd[3])
    np.testing.assert_array_equal(index.vectors_at([4, 0, 4, 1]), expected_nd[[4, 0, 4, 1]])
    assert index.vector(0).dtype == index.vectors_at([]).dtype == np.float16
    assert index.vectors_at([]).shape == (0, 4)
    for wrong in (-1, 5):
        with pytest.raises(JclipError, match=f"no vector {wrong}: it has 5"):
            index.vector(wrong)
        with pytest.raises(JclipError, match=f"no vector {wrong}: it has 5"):
            index.vectors_at([0, wrong])


def test_conditions_select_vectors_and_entries(folder):
    index = Index.open(folder)
    np.testing.assert_array_equal(index.select(), [0, 1, 3, 4])  # vector 2 has no entry
    np.testing.assert_array_equal(index.select(Where("kind = ?", ("text",))), [3])
    assert index.select(Where("0")).dtype == np.int64
    assert index.select_entries(Where("vector = ?", (1,))) == ENTRIES[1:3]
    assert index.select_entries(offset=1, limit=2) == ENTRIES[1:3]
    with pytest.raises(JclipError, match="has no entry 4"):
        index.entries([1, 4])


def test_equal_contents_give_equal_bytes(folder, tmp_path):
    again = write_small_index(tmp_path / "again", VECTORS, ENTRIES)
    for file in ("index.json", "entries.sqlite", "segments/000002.npy"):
        assert (folder / file).read_bytes() == (again / file).read_bytes()


def test_a_snapshot_outlives_its_replacement(folder):
    index = Index.open(folder)
    shutil.rmtree(folder)
    assert index.entry(9) == ENTRIES[4]
    assert float(index.vector(4)[1]) == 1.0


def test_an_empty_index(tmp_path):
    index = Index.open(write_small_index(tmp_path / "index", np.zeros((0, 4)), []))
    assert (len(index), index.vectors, len(index.select()), list(index.blocks())) == (0, 0, 0, [])


def test_another_model_is_refused(folder):
    index = Index.open(folder)
    index.check_model(type("Model", (), {"identity": "0" * 64})())
    with pytest.raises(JclipError, match=r"made with another model \(small, from /models/small\)"):
        index.check_model(type("Model", (), {"identity": "1" * 64})())


def test_no_index(tmp_path):
    with pytest.raises(JclipError, match=r"is not an index: there is no such folder"):
        Index.open(tmp_path / "nothing")
    with pytest.raises(JclipError, match=r"is not an index: it has no index.json"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "install a newer jclip"),
        ({"format": "1"}, "must be a whole number"),
        ({"dim": 0}, "must be 1 to"),
        ({"dim": 10**30}, "must be 1 to"),
        ({"dim": 5}, "it holds float16"),
        ({"dtype": "float32"}, "must be 'float16'"),
        ({"orientation": "up"}, "must be 'ignore' or 'apply'"),
        ({"model": {}}, "has no identity"),
        ({"model": 3}, "must be an object"),
    ],
)
def test_wrong_facts(folder, change, message):
    file = folder / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(JclipError, match=message):
        Index.open(folder)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE segments SET count = 3 WHERE number = 1", "does not follow"),
        ("UPDATE segments SET count = 2 WHERE number = 2", "it holds float16"),
        ("UPDATE segments SET first = 'x' WHERE number = 1", "does not follow"),
        ("UPDATE segments SET number = 7 WHERE number = 1", "it is missing"),
        ("UPDATE segments SET count = -1", "wrong value"),
        ("UPDATE segments SET count = 0", "does not follow"),
        ("UPDATE entries SET vector = 5 WHERE id = 9", "does not exist"),
        ("UPDATE entries SET vector = -1 WHERE id = 9", "not valid|does not exist"),
        ("UPDATE entries SET vector = 'x' WHERE id = 9", "type str|is not a number"),
        ("UPDATE entries SET path = 'text' WHERE id = 9", "column path has a value of type str"),
        ("UPDATE entries SET path = x'410042' WHERE id = 9", "a path is not valid"),
        ("UPDATE entries SET path = x'' WHERE id = 9", "a path is not valid"),
        ("UPDATE entries SET kind = 'video' WHERE id = 9", "entry 9 is not valid"),
        ("UPDATE entries SET size = 1.5 WHERE id = 9", "type float"),
        ("UPDATE entries SET meta = '[]' WHERE id = 9", "is not an object"),
        (f"UPDATE entries SET meta = '{'[' * 100}' WHERE id = 9", "meta of entry 9"),
        ("UPDATE entries SET text = CAST(x'ff' AS TEXT) WHERE id = 9", "cannot be read"),
        ("DROP TABLE skipped", "its tables are not those"),
        ("CREATE TABLE more (id)", "its tables are not those"),
        ("DROP INDEX entries_by_path", "its tables are not those"),
        (
            "DROP TABLE skipped; CREATE VIEW skipped AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) "
            "SELECT * FROM n",
            "its tables are not those",
        ),
    ],
)
def test_wrong_tables(folder, statement, message):
    connection = sqlite3.connect(folder / "entries.sqlite")
    connection.executescript(statement)
    connection.close()
    with pytest.raises(JclipError, match=message):
        _read(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: file.write_bytes(b""), "cannot be read as part of an index"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "it is incomplete"),
        (lambda file: file.write_bytes(file.read_bytes() + b"0"), "it is incomplete"),
        (lambda file: np.save(file, np.zeros((2, 4), np.float32)), "it holds float32"),
        (lambda file: np.save(file, np.zeros((4, 2), np.float16)), "it holds float16"),
        (lambda file: np.save(file, np.asfortranarray(np.zeros((2, 4), np.float16))), "it holds float16"),
        (lambda file: np.save(file, np.array([{}] * 2), allow_pickle=True), "it holds object"),
        (lambda file: file.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': __import__('os')}".ljust(128)), "cannot be"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "a FIFO, not a regular file"),
        (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
    ],
)
def test_wrong_segments(folder, harm, message):
    harm(segments.segment_file(folder, 0))
    with pytest.raises(JclipError, match=message):
        Index.open(folder)


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(b"SQLite format 3\0" * 9)])
def test_wrong_databases(folder, harm):
    harm(folder / "entries.sqlite")
    with pytest.raises(JclipError, match=r"entries.sqlite cannot be read as part of an index"):
        Index.open(folder)


def test_damaged_pages_are_errors(folder):
    """Each byte of the database in turn is set to 255: the index opens and reads, or raises JclipError."""
    file = folder / "entries.sqlite"
    good = file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for place in random.choice(len(good), 300, replace=False):
        file.write_bytes(good[:place] + b"\xff" + good[place + 1 :])
        try:
            _read(folder)
        except JclipError:
            refused += 1
    assert refused > 0
