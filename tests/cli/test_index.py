"""`jclip index`: facts of an index, and its approximate index."""

import json
import shutil
import sqlite3
import sys

import numpy as np
import pytest

from jclip.cli import main
from tests.cli.small_index import write_all


@pytest.fixture
def made(made_once, tmp_path, monkeypatch):
    """Folder with a copy of the index, which a test may change."""
    monkeypatch.setenv("COLUMNS", "200")
    shared = made_once("small index", write_all)
    shutil.copytree(shared / "index", tmp_path / "index")
    skipped = "INSERT INTO skipped VALUES (1, x'ff', 'the image does not decode', 'why', 1)"
    change(tmp_path / "index", skipped, "DELETE FROM entries WHERE id = 2")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(index, *statements):
    connection = sqlite3.connect(index / "entries.sqlite")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def run(capsys, *words):
    assert main(["index", *words]) == 0
    return capsys.readouterr().out


def test_facts(made, capsys):
    shown = " ".join(run(capsys, "index").replace("│", " ").split())
    for words in (
        "images 5", "vectors 4 of dimension 64, float16", "unused vectors 1", "EXIF orientation applied",
        "made by jclip test", "skipped: the image does not decode 1", "KiB",
    ):  # fmt: skip
        assert words in shown
    assert "approximate" not in shown
    found = json.loads(run(capsys, "index", "--json"))
    assert found["entries"] == {"image": 5, "text": 0} and found["vectors"] == {"used": 4, "unused": 1}
    assert found["skipped"] == {"the image does not decode": 1} and found["ann"] is None and found["dim"] == 64
    assert found["bytes"] == sum(file.stat().st_size for file in (made / "index").rglob("*") if file.is_file())


def test_an_approximate_index(made, capsys):
    (made / "queries.txt").write_text("红色\n\n蓝色\n  猫\n", encoding="utf-8")
    shown = " ".join(run(capsys, "index", "--ann", "--queries", "queries.txt").replace("│", " ").split())
    assert "recall@10 1.000, 2 queries" in shown and "recall@10 of texts 1.000, 2 queries" in shown
    assert "built in" in shown and "out of date" not in shown
    found = json.loads(run(capsys, "index", "--json"))["ann"]
    assert found["current"] is True and found["text_queries"] == 2 and found["recall"] == 1
    assert main(["search", "index", "红色", "--ann", "--json"]) == 0
    approximate = json.loads(capsys.readouterr().out)
    assert main(["search", "index", "红色", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == approximate
    change(made / "index", "DELETE FROM entries WHERE vector = 4", "UPDATE segments SET count = 4")
    segment = made / "index" / "segments" / "000000.npy"
    np.save(segment, np.load(segment)[:4])
    assert "out of date: run jclip index --ann again" in run(capsys, "index")
    assert main(["search", "index", "红色", "--ann"]) == 1
    assert "has changed since its approximate index was built" in capsys.readouterr().err
    run(capsys, "index", "--ann")
    assert "out of date" not in run(capsys, "index")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere is not an index"),
        (["index", "--queries", "queries.txt"], "give --ann with it"),
        (["index", "--ann", "--queries", "nowhere.txt"], "nowhere.txt"),
        (["index", "--ann", "--queries", "one.txt"], "one.txt has 1 texts, but must have at least 2"),
        (["index", "--ann", "--queries", "latin.txt"], "latin.txt is not UTF-8 text"),
        (["index", "--ann", "--queries", "two.txt", "--model", "nowhere"], "nowhere"),
    ],
)
def test_errors(made, capsys, words, told):
    (made / "one.txt").write_text("a\n\n")
    (made / "two.txt").write_text("a\nb\n")
    (made / "latin.txt").write_bytes("é\né\n".encode("latin-1"))
    assert main(["index", *words]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("jclip index: ") and captured.err.count("\n") == 1
    assert told in captured.err and not (made / "index" / "ann").exists()


def test_a_missing_extra(made, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert main(["index", "index", "--ann"]) == 1
    assert 'faiss is not installed: pip install "jclip[search]"' in capsys.readouterr().err
