"""Limits of the cache's folders."""

import os

import pytest

from jclip.cache.bounds import files_by_use, limit


@pytest.mark.parametrize(("largest", "most", "left"), [(100, 9, 5), (30, 9, 3), (29, 9, 2), (100, 1, 1), (0, 9, 0)])
def test_the_files_used_longest_ago_are_removed(largest, most, left, tmp_path):
    names = ["c", "a", "e", "b", "d"]
    for age, name in enumerate(names):  # the first was used last
        file = tmp_path / "machine" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(10))
        os.utime(file, (1e9 - age, 1e9 - 10 * age))
    assert [file.name for _, _, file in files_by_use(tmp_path)] == names[::-1]
    limit(tmp_path, largest, most)
    assert sorted(os.listdir(tmp_path / "machine")) == sorted(names[:left])
