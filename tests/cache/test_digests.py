"""Digests are remembered for unchanged files."""

import os

import pytest

from jclip.cache.digests import recall, remember, stamp


def test_a_digest_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"1234")
    before = stamp(tmp_path, [file])
    assert recall("kind", file, before) is None
    remember("kind", file, before, "digest")
    assert recall("kind", file, stamp(tmp_path, [file])) == "digest"
    assert recall("another kind", file, before) is recall("kind", tmp_path / "other", before) is None
    old = file.stat().st_mtime_ns
    for change in (lambda: file.write_bytes(b"12345"), lambda: os.utime(file, ns=(old, old - 1)), file.unlink):
        change()
        now = stamp(tmp_path, [file])
        assert recall("kind", file, now) is None
        remember("kind", file, now, "newer")
        assert recall("kind", file, now) == "newer"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stamp": 3}', '{"stamp": "s", "digest": 3}'])
def test_a_damaged_note_is_ignored_and_replaced(content, tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    remember("kind", tmp_path, "s", "digest")
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    note.write_text(content)
    assert recall("kind", tmp_path, "s") is None
    remember("kind", tmp_path, "s", "again")
    assert recall("kind", tmp_path, "s") == "again"
