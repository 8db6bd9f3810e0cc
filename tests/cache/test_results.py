"""Results that are kept in the cache."""

import os

import pytest

from jclip.cache import results
from jclip.cache.contents import clear, contents
from jclip.cache.results import keep_result, read_result


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_result_is_kept():
    assert read_result("00ff") is None
    keep_result("00ff", {"bytes": 3, "text": "猫\n"})
    assert read_result("00ff") == {"bytes": 3, "text": "猫\n"}
    keep_result("00ff", [1])
    assert read_result("00ff") == [1] and read_result("ff00") is None


@pytest.mark.parametrize("damage", [b"", b"no gzip", b"\x1f\x8b\x08\x00 half"])
def test_a_damaged_result_is_absent_and_replaced(damage, cache):
    keep_result("00ff", 1)
    (file,) = (cache / results.FOLDER).iterdir()
    file.write_bytes(damage or file.read_bytes()[:-9])
    assert read_result("00ff") is None
    keep_result("00ff", 2)
    assert read_result("00ff") == 2


def test_results_are_limited(cache, monkeypatch):
    monkeypatch.setattr(results, "MOST", 2)
    for number, key in enumerate(("a0", "b0")):
        keep_result(key, key)
        os.utime(cache / results.FOLDER / f"{key}.json.gz", (1e9 + number, 1e9 + number))
    assert read_result("a0") == "a0"  # used now
    keep_result("c0", "c0")
    assert [read_result(key) for key in ("a0", "b0", "c0")] == ["a0", None, "c0"]


def test_a_cache_that_cannot_be_written_is_not_in_the_way(cache):
    cache.touch()
    keep_result("00ff", 1)
    assert read_result("00ff") is None


def test_results_are_listed_and_cleared(cache):
    keep_result("00ff", 1)
    (item,) = contents()
    assert (item.name, item.source) == ("planned", "plans for accelerators")
    removed, errors = clear(["planned"])
    assert [each.name for each in removed] == ["planned"] and not errors
    assert contents() == [] and not (cache / "planned").exists()
