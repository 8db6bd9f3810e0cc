"""The cache's folder, and digests that are remembered for unchanged files."""

import os
from pathlib import Path

import pytest

from jclip.cache.digests import recall, remember, stamp
from jclip.cache.folder import cache_folder
from jclip.errors import JclipError


@pytest.mark.parametrize(
    ("own", "shared", "home", "folder"),
    [
        ("/own", "/shared", "/home/a", "/own"),
        ("~/own", "/shared", "/home/a", "/home/a/own"),
        ("", "/shared", "/home/a", "/shared/jclip"),
        ("", "relative", "/home/a", "/home/a/.cache/jclip"),
        ("", "", "/home/a", "/home/a/.cache/jclip"),
    ],
)
def test_the_folder(own, shared, home, folder, monkeypatch):
    for name, value in (("JCLIP_CACHE", own), ("XDG_CACHE_HOME", shared), ("HOME", home)):
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    for name in ("JCLIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(JclipError, match="no home folder for the cache: set JCLIP_CACHE"):
        cache_folder()


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
