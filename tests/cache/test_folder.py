"""The cache's folder."""

from pathlib import Path

import pytest

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
    monkeypatch.undo()
    monkeypatch.setenv("JCLIP_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(JclipError, match="JCLIP_CACHE is ~nobody-of-this-name/cache, but there is no such user"):
        cache_folder()


def test_a_relative_folder_is_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", "mine")
    monkeypatch.chdir(tmp_path)
    assert cache_folder() == tmp_path / "mine"
