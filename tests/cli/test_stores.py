"""`jclip index --to` and `jclip search` with a database, as a user sees them."""

import json
import re
from pathlib import Path

import pytest

from jclip.cli import main
from tests.cli.small_index import write_all

ROOT = Path(__file__).parents[2]
ENTRIES = 6


@pytest.fixture(scope="session")
def made(made_once):
    return made_once("small index", write_all)


@pytest.fixture(params=["pgvector", "milvus"])
def address(request, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    if request.param == "milvus":
        return "milvus:photos.db"
    postgres = request.getfixturevalue("postgres")
    postgres.run("DROP TABLE IF EXISTS jclip")
    return postgres.address()


def run(capsys, *words):
    code = main(list(map(str, words)))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def fails(capsys, *words):
    assert main(list(map(str, words))) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def hits(capsys, *words):
    return json.loads(run(capsys, "search", *words, "--json"))["hits"]


def test_an_index_is_copied_to_a_database_and_searched_there(made, address, capsys):
    index = made / "index"
    shown = run(capsys, "index", index, "--to", address)
    assert "6 written" in shown and f":{index}" in shown
    record = json.loads(run(capsys, "index", index, "--to", address, "--json"))
    assert record["pushed"] == {"written": 0, "deleted": 0, "unchanged": ENTRIES} and record["ann"] is None
    for words in (
        ("红色",),
        ("红色", "-", "猫", "--k", "2", "--offset", "2"),
        ("a", "--where", "n>=3"),
        ("a", "--k", "1"),
    ):
        expected = hits(capsys, index, *words)
        for found in (hits(capsys, address, *words), hits(capsys, index, *words, "--to", address)):
            # Milvus's scores of equal vectors may differ in the last bit, and so change places.
            found.sort(key=lambda hit: (-round(hit["score"], 5), hit["id"]))
            assert found == [{**hit, "score": pytest.approx(hit["score"], abs=1e-6)} for hit in expected]
    assert f"{made}/pictures/a/red.png" in run(capsys, "search", address, "红色", "--folder", made / "pictures/a")


def test_embedding_to_a_database(made, address, capsys, tmp_path):
    words = ("embed", made / "pictures", tmp_path / "index", "--model", made / "bundle", "--workers", 0)
    record = json.loads(run(capsys, *words, "--to", address, "--json"))
    assert record["entries"] == ENTRIES and record["to"]["pushed"] == {"written": 6, "deleted": 0, "unchanged": 0}
    assert [hit["path"] for hit in hits(capsys, address, "a")] == [
        hit["path"] for hit in hits(capsys, tmp_path / "index", "a")
    ]
    shown = run(capsys, "embed", tmp_path / "index", "--update", "--workers", 0, "--to", address)
    assert "0 written, 6 unchanged" in shown


def test_embedding_to_a_database_that_is_not_there_embeds_nothing(made, capsys, tmp_path):
    words = ("embed", made / "pictures", tmp_path / "index", "--model", made / "bundle")
    assert "cannot be reached" in fails(capsys, *words, "--to", "pgvector://127.0.0.1:1/db")
    assert "--to copies a written index" in fails(capsys, *words, "--to", "milvus:a.db", "--dry-run")
    assert not (tmp_path / "index").exists()


def test_an_approximate_index_in_a_database(made, address, capsys, tmp_path):
    index = made / "index"
    run(capsys, "index", index, "--to", address)
    assert "has no approximate index: run jclip index INDEX --to" in fails(capsys, "search", address, "a", "--ann")
    (tmp_path / "queries.txt").write_text("红色\na cat\n狗\n")
    shown = run(capsys, "index", index, "--to", address, "--ann", "--queries", tmp_path / "queries.txt")
    assert "recall@10" in shown and "1.000, 3 queries" in shown and "1.000, 2 queries" in shown
    assert not (index / "ann").exists()
    found = [hit["id"] for hit in hits(capsys, address, "红色", "--ann")]
    assert found == [hit["id"] for hit in hits(capsys, index, "红色")]


def test_wrong_uses_are_refused(made, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index, address = made / "index", f"milvus:{tmp_path}/photos.db"
    assert "is not a known kind of database: did you mean" in fails(capsys, "search", "pgvektor://h/d", "a")
    assert "INDEX and --to are two databases" in fails(capsys, "search", address, "a", "--to", address)
    assert "--duplicates compares the entries of an index" in fails(capsys, "search", address, "--duplicates")
    assert "photos.index is not an index" in fails(capsys, "search", "photos.index", "a", "--to", address)
    assert "there is no such table; push an index" in fails(capsys, "search", address, "a")
    assert not (tmp_path / "photos.db").exists()
    assert "cannot be reached" in fails(capsys, "index", index, "--to", "pgvector://me:secret@127.0.0.1:1/db")
    message = fails(capsys, "search", "pgvector://me:secret@127.0.0.1:1/db", "a")
    assert "pgvector://me@127.0.0.1:1/db, table jclip cannot be reached" in message and "secret" not in message


def test_the_example_of_the_document(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, place in (("photos.index", "index"), ("bundle", "bundle")):
        (tmp_path / name).symlink_to(made / place)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/stores.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, "docs/stores.md", "exec"), {})
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "Pushed(written=6, deleted=0, unchanged=0)" and len(lines) == 5
    assert {int(line.split()[1]) for line in lines} <= {1, 2, 3, 4, 5, 9}
