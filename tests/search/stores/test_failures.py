"""Servers that are not there, refuse, or go away: one clear line each, and nothing is lost."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.search.index import Index
from jclip.search.searching import Searcher
from jclip.search.stores import milvus, pushing
from jclip.search.stores.addresses import parse_address
from jclip.search.stores.opening import open_store
from jclip.search.stores.pushing import Pushed, push
from jclip.search.stores.searching import StoreSearcher
from tests import servers
from tests.search.indexes import small_entry, write_small_index

COUNT = 60


@pytest.fixture
def index(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(COUNT, 4))
    folder = write_small_index(tmp_path / "index", vectors, [small_entry(i, i, f"/{i}.jpg") for i in range(COUNT)])
    with Index.open(folder) as opened:
        yield opened


def opened(text, **more):
    return open_store(replace(parse_address(text), **more))


def refusal(text):
    with pytest.raises(JclipError) as caught:
        opened(text)
    return str(caught.value)


def killed_midway(index, store, server, monkeypatch):
    """Kills the server after two of six writes; returns the error of the push, and the seconds until it."""
    monkeypatch.setattr(pushing, "_ROWS", 10)
    upsert, calls = store.upsert, []

    def upsert_and_kill(rows):
        if len(calls) == 2:
            server.kill()
        calls.append(len(rows))
        upsert(rows)

    monkeypatch.setattr(store, "upsert", upsert_and_kill)
    started = time.monotonic()
    with pytest.raises(JclipError) as caught:
        push(index, store)
    assert calls == [10, 10, 10]
    with pytest.raises(JclipError, match="went away"):
        StoreSearcher(store)
    store.close()
    return str(caught.value), time.monotonic() - started


def finds_everything(index, store):
    query_d = np.array([1.0, 2, 3, 4])
    expected = Searcher(index).search(query_d, COUNT)
    hits = StoreSearcher(store).search(query_d, COUNT)
    assert [hit.entry for hit in hits] == [hit.entry for hit in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in expected], atol=1e-6)


def test_a_postgres_that_is_killed_loses_nothing(index, postgres, monkeypatch, caplog):
    address = f"{postgres.address()}&table=killed"
    message, _ = killed_midway(index, opened(address), postgres, monkeypatch)
    assert message.startswith("pgvector://postgres@/postgres, table killed: the server went away (")
    assert message.endswith("): start it, and run the same command again; what was written is kept")
    assert "cannot be reached (" in refusal(address)
    postgres.start()
    store = opened(address)
    assert push(index, store) == Pushed(40, 0, 20)
    finds_everything(index, store)
    store.close()
    assert not caplog.records


def test_a_milvus_that_is_killed_loses_nothing(index, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(milvus, "_CALL", 2)
    monkeypatch.setattr(milvus, "_CONNECT", 2)
    with servers.milvus(tmp_path) as server:
        address = f"{server.address()}?table=killed"
        message, seconds = killed_midway(index, opened(address), server, monkeypatch)
        assert message.startswith(f"{server.address()}, table killed: the server went away (")
        assert message.endswith("): start it, and run the same command again; what was written is kept")
        assert seconds < 15
        assert "cannot be reached (" in refusal(address)
        server.start()
        monkeypatch.undo()
        store = opened(address)
        assert push(index, store) == Pushed(40, 0, 20)
        finds_everything(index, store)
        store.close()
    assert not caplog.records


def test_a_postgres_that_refuses(postgres, index):
    at, locked = postgres.address(), postgres.address(user="locked:open")
    assert 'password authentication failed for user "locked"' in refusal(locked)
    assert "open" not in refusal(locked).replace("postgres", "")
    assert "no password supplied" in refusal(postgres.address(user="locked"))
    assert 'database "nothing" does not exist' in refusal(postgres.address("nothing"))
    assert "failed to resolve host" in refusal("pgvector://nowhere.invalid/db")
    assert "Connection refused" in refusal("pgvector://127.0.0.1:1/db")
    for wrong in ("pgvector://me:se@cr:et@h:x/db", "pgvector:db", f"{at}&colour=red"):
        assert refusal(wrong).startswith("pgvector address: it is not valid; write pgvector://USER@HOST:PORT/DATABASE")
    store = opened(postgres.address(user="locked:sesame"), table="secret")
    postgres.run("DROP EXTENSION IF EXISTS vector CASCADE", "REVOKE CREATE ON DATABASE postgres FROM public")
    with pytest.raises(JclipError, match="has no extension vector .permission denied to create.*: install pgvector"):
        push(index, store)
    postgres.run("CREATE EXTENSION vector")
    with pytest.raises(JclipError, match="the database refuses .permission denied for schema public.$"):
        push(index, store)
    store.close()


def test_an_old_pgvector_is_refused(postgres, index):
    postgres.run("DROP DATABASE IF EXISTS old", "CREATE DATABASE old")
    postgres.run(
        "CREATE EXTENSION vector",
        "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'",
        database="old",
    )
    store = opened(postgres.address("old"))
    with pytest.raises(JclipError, match="its pgvector is 0.7.4, but jclip needs 0.8: install a newer one, and run"):
        push(index, store)
    store.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE changed DROP COLUMN meta", 'the database refuses .column "meta" does not exist.$'),
        ("UPDATE changed SET kind = 'sound'", "row [0-9]+ is not one of jclip's: push the index again"),
        ("UPDATE changed SET path = 'a\\000b'", "row [0-9]+ is not one of jclip's: push the index again"),
        ("UPDATE changed SET meta = '[]'", "row [0-9]+ is not one of jclip's: push the index again"),
        ("COMMENT ON TABLE changed IS '{\"jclip\": 2}'", "jclip did not make this table"),
        ("DROP TABLE changed", "there is no such table"),
    ],
)
def test_a_table_that_others_have_changed(postgres, index, change, message):
    store = opened(f"{postgres.address()}&table=changed")
    push(index, store)
    postgres.run(change)
    with pytest.raises(JclipError, match=message):
        StoreSearcher(store).search(np.ones(4), 3)
    store.close()
    postgres.run("DROP TABLE IF EXISTS changed")


def test_a_milvus_that_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(milvus, "_CONNECT", 1)
    monkeypatch.setenv("MILVUS_URI", "http://127.0.0.1:1")
    for text, shown in (("milvus", "milvus"), ("milvus://me:secret@127.0.0.1:1/db", "milvus://me@127.0.0.1:1/db")):
        message = refusal(text)
        assert message.startswith(f"{shown}, table jclip cannot be reached (") and "secret" not in message
    for wrong in ("milvus:photos", "milvus://h:port", "milvus:/a.db?secure", "milvus://"):
        assert refusal(wrong).startswith("milvus address: it is not valid; write milvus://USER@HOST:PORT/DATABASE")
    assert "check that its folder exists, and no other process has opened it" in refusal(f"milvus:{tmp_path}/no/a.db")


def test_entries_too_large_for_milvus(tmp_path):
    entries = [
        small_entry(1, 0, "/long.jpg", text="狗" * 50_000),
        small_entry(2, 0, "/meta.jpg", meta={"words": "狗" * 50_000}),
    ]
    store = opened(f"milvus:{tmp_path}/a.db")
    with Index.open(write_small_index(tmp_path / "one", [[1, 0, 0, 0]], entries[:1])) as index:
        push(index, store)
        (hit,) = StoreSearcher(store).search([1.0, 0, 0, 0], 2)
        assert hit.entry == replace(entries[0], text=f"{'狗' * 1000}…")
    message = r"/meta.jpg: its metadata have 150,\d+ bytes, but Milvus holds 65,000"
    two = write_small_index(tmp_path / "two", [[1, 0, 0, 0]], entries)
    with Index.open(two) as index, pytest.raises(JclipError, match=message):
        push(index, store)
    store.close()


def test_pymilvus_leaves_the_logging_of_others_alone():
    code = (
        "import logging; other = logging.getLogger('other')\n"
        "from jclip.search.stores.quiet_pymilvus import MilvusClient\n"
        "import logging.config\n"
        "print(other.disabled, logging.getLogger('pymilvus').handlers, logging.config.dictConfig.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False [] logging.config\n"
