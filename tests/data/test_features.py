"""Feature caches: files are complete or absent, despite other writers and disk errors."""

import os
import resource
from dataclasses import replace

import numpy as np
import pytest

from jclip.data.batches.features import DamagedCache, FeatureCache, describe_source, open_cache
from jclip.data.sources.folders import ParallelFolder
from jclip.data.sources.records import Translation
from jclip.data.sources.synthetic import SyntheticPairs, caption, translation, write_tokenizer
from jclip.data.sources.writing import write_parallel
from jclip.errors import JclipError
from jclip.io.files import whole_file
from tests.data.loading import make_batches


def test_a_source_is_identified_by_its_files_and_split(tmp_path):
    write_parallel(tmp_path / "text", [Translation(caption(n), translation(n), "zh") for n in range(4)])
    source = ParallelFolder(str(tmp_path / "text"))
    before = describe_source(source, tmp_path / "text" / "cache")
    (tmp_path / "text" / "cache").mkdir()
    (tmp_path / "text" / "cache" / "x").write_text("a cache in the folder is none of its data")
    assert describe_source(replace(source, weight=3.0, english_share=0.1), tmp_path / "text" / "cache") == before
    assert describe_source(replace(source, split="other"), tmp_path / "text" / "cache") != before
    (tmp_path / "text").rename(tmp_path / "moved")
    moved = ParallelFolder(str(tmp_path / "moved"))
    assert describe_source(moved, tmp_path / "moved" / "cache") == before
    (shard,) = (tmp_path / "moved").glob("*.array_record*")
    os.utime(shard, ns=(1, 1))
    assert describe_source(moved, tmp_path / "moved" / "cache") != before


def test_rows_and_reasons_round_trip(tmp_path):
    for dtype, width in (("float32", 3), ("bfloat16", 7)):
        cache = FeatureCache(tmp_path / dtype, 5, width, dtype, 2, first_rows=(0, 2))
        rows = [np.arange(width, dtype=np.float32) + row for row in range(5)]
        size = width * (4 if dtype == "float32" else 2)
        reason = "x" * (size - 1)  # with its mark, exactly as long as a row of features
        cache.write(0, [rows[0], reason])
        cache.write(1, rows[2:4])
        assert cache.missing() == [2]
        cache.write(2, rows[4:])
        assert cache.missing() == []
        np.testing.assert_array_equal(cache.row(0), rows[0])
        np.testing.assert_array_equal(cache.row(1, 2), rows[4])
        with pytest.raises(JclipError, match=rf"^{reason}$"):
            cache.row(0, 1)
        for record, picture in ((0, 2), (1, 3)):
            with pytest.raises(IndexError, match=f"record {record} has no input {picture} in .*: see `Record.inputs`"):
                cache.row(record, picture)
        with pytest.raises(IndexError, match="record 0 has no input 1"):
            replace(cache, first=None).row(0, 1)


def damage(cache):
    """Changes bytes but not the size, as a failing disk does."""
    (file,) = cache.folder.glob("*.array_record")
    data = bytearray(file.read_bytes())
    inside = next(at for at in range(40, len(data)) if data[at])
    data[inside : inside + 60] = bytes(60)
    file.write_bytes(bytes(data))


def test_a_damaged_cache_is_named(tmp_path):
    cache = FeatureCache(tmp_path, 1, 3, "float32", 1)
    cache.write(0, [np.zeros(3, np.float32)])
    damage(cache)
    with pytest.raises(DamagedCache, match=r"is damaged \(.*\): delete it; the next run makes it again"):
        cache.row(0)


class Meanwhile(list):
    """Rows that call `act` while they are read."""

    def __init__(self, rows, act):
        super().__init__(rows)
        self._act = act

    def __iter__(self):
        self._act()
        return super().__iter__()


def test_two_runs_that_make_a_cache_at_the_same_time(tmp_path, monkeypatch):
    """Both begin without a cache. The slower one neither fails because of the other's files nor removes them."""
    sizes = {"count": 2, "width": 3, "dtype": "float32"}

    def begun_by_another(file):
        with monkeypatch.context() as other:
            other.setattr("jclip.data.batches.features.whole_file", whole_file)
            open_cache(tmp_path, "image", {"of": "this"}, **sizes, shard_rows=2)
        return whole_file(file)

    with monkeypatch.context() as patch:
        patch.setattr("jclip.data.batches.features.whole_file", begun_by_another)
        cache = open_cache(tmp_path, "image", {"of": "this"}, **sizes, shard_rows=1)
    assert cache.shard_rows == 2  # the value of the run that was first
    rows = [np.full(3, row, np.float32) for row in range(2)]
    cache.write(0, Meanwhile(rows, lambda: cache.write(0, rows)))
    assert cache.missing() == []
    np.testing.assert_array_equal(cache.row(1), rows[1])
    assert sorted(file.name for file in cache.folder.iterdir()) == [
        "description.json",
        "features-00000-of-00001.array_record",
    ]


def test_a_disk_that_is_full_is_named_and_nothing_stays(tmp_path):
    cache = FeatureCache(tmp_path / "cache", 1, 3, "float32", 1)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    try:
        with pytest.raises(
            JclipError, match=r"array_record cannot be written \(.*too large\): free some space"
        ) as told:
            cache.write(0, [np.zeros(3, np.float32)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "\n" not in str(told.value) and not (tmp_path / "cache").exists()
    cache.write(0, [np.zeros(3, np.float32)])
    assert cache.missing() == []


def test_a_damaged_row_is_not_replaced_like_an_unreadable_image(tmp_path):
    """`max_unreadable` does not apply: an unreadable row does not mean an unreadable image."""
    words = write_tokenizer("wordpiece", tmp_path / "words")
    some = make_batches(SyntheticPairs(count=4), tokenizer=words, batch_size=4, max_unreadable=9)
    cache = FeatureCache(tmp_path / "cache", 4, 3, "float32", 4)
    cache.write(0, ["no picture", *np.zeros((3, 3), np.float32)])
    some.features = [cache]
    assert some[0]["image_feature"].shape == (4, 3) and some.unreadable == ["no picture"]
    damage(cache)
    some.features = [replace(cache)]  # opened anew
    with pytest.raises(DamagedCache, match="delete it"):
        some[0]
    assert some.unreadable == ["no picture"]
