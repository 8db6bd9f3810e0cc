"""`jclip cache`: what is listed, what is removed, and what is in use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jclip.cache import models
from jclip.cache.contents import contents
from jclip.cache.digests import recall, remember
from jclip.cli import main
from jclip.io.files import _machine
from tests.poison import TEXT, assert_harmless

ROOT = Path(__file__).parents[2]
USING = """
import sys
from jclip.cache.models import made_once
made_once("used", lambda entry: True, None, lambda: None)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path / "cache"


def put(name, source, size):
    """Makes an entry with a file of some bytes, and stops using it."""

    def make(place):
        place.mkdir()
        (place / "parameters").write_bytes(bytes(size))
        return {"source": source}

    folder = models.made_once(name, lambda entry: True, make, lambda: None)
    os.close(models._used.pop(folder.parent))
    return folder


@pytest.fixture
def filled(cache):
    """Two models, one of which another process uses, a compiled program, and what a killed conversion has left."""
    put("used", "hf://makers/used", 1000)
    put("idle", TEXT, 3000)
    for number, name in enumerate(("used", "idle")):
        os.utime(cache / "models" / name / "source.json", (1e9 + number, 1e9 + number))
    program = cache / "compiled" / "machine" / "jit_f-1-cache"
    program.parent.mkdir(parents=True)
    program.write_bytes(bytes(30))
    os.utime(program, (1e9 + 2, 1e9 + 2))
    remember("kind", "name", "stamp", "digest")
    (cache / "models" / f".half.12345678.{_machine()}.partial").mkdir()
    return cache


@pytest.fixture
def in_use(filled):
    process = subprocess.Popen(
        [sys.executable, "-c", USING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "ready\n"
    yield
    process.communicate()


def test_it_lists_what_was_used_last_first(filled, capsys):
    assert main(["cache", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == ["compiled", "idle", "used"]
    assert [row["source"] for row in found] == ["compiled programs", TEXT, "hf://makers/used"]
    records = [(filled / "models" / name / "source.json").stat().st_size for name in ("idle", "used")]
    assert [row["bytes"] for row in found] == [30, 3000 + records[0], 1000 + records[1]]
    assert found[1]["folder"] == str(filled / "models" / "idle" / "bundle")
    assert found[1]["last_used"] == "2001-09-09T01:46:41+00:00"
    assert main(["cache", "list"]) == 0
    assert_harmless(capsys.readouterr().out, TEXT, "hf://makers/used", str(filled), "models/used/bundle")


def test_an_empty_cache_says_so(cache, capsys):
    for command in ("list", "clear"):
        assert main(["cache", command]) == 0
        assert "nothing is in the cache" in capsys.readouterr().out
    assert main(["cache", "clear", "x"]) == 1
    assert capsys.readouterr().err == "jclip cache: 'x' is not in the cache: it is empty\n"
    assert main(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not cache.exists()


def test_it_clears_everything_that_nobody_uses(filled, in_use, capsys):
    assert main(["cache", "clear"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and "compiled programs (30 bytes, " in out
    assert err == f"jclip cache: {filled}/models/used is in use by another process: end that one first\n"
    assert [item.name for item in contents()] == ["used"]
    assert sorted(os.listdir(filled / "models")) == [".used.lock", "used"]
    assert recall("kind", "name", "stamp") is None


def test_after_its_use_it_is_cleared_too(filled, capsys):
    assert main(["cache", "clear"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert not contents() and not os.listdir(filled / "models")


@pytest.mark.parametrize("name", ["idle", TEXT])
def test_it_clears_by_name_or_source(name, filled, capsys):
    assert main(["cache", "clear", name]) == 0
    out = capsys.readouterr().out
    assert_harmless(out, TEXT)
    assert out.startswith("removed: ") and out.count("\n") == 1
    assert [item.name for item in contents()] == ["compiled", "used"]
    assert recall("kind", "name", "stamp") == "digest"


def test_an_unknown_name_removes_nothing(filled, capsys):
    assert main(["cache", "clear", "idle", "usde"]) == 1
    assert "'usde' is not in the cache: did you mean used?" in capsys.readouterr().err
    assert len(contents()) == 3


def test_what_is_being_made_is_in_use(filled, capsys):
    with models._making(filled / "models" / "idle", lambda: None):
        assert main(["cache", "clear", "idle"]) == 1
        assert "models/idle is in use" in capsys.readouterr().err
    assert main(["cache", "clear", "idle"]) == 0


def test_using_marks_the_time_and_a_cleared_entry_is_made_again(filled):
    before = {item.name: item.last_used for item in contents()}
    assert put("used", "again", 10).parent == filled / "models" / "used"  # it exists, so nothing is made
    now = {item.name: item.last_used for item in contents()}
    assert now["used"] > before["used"] == 1e9 and now["idle"] == before["idle"]
    assert main(["cache", "clear", "used"]) == 0
    put("used", "again", 10)
    assert {item.source for item in contents()} >= {"again"}
