"""Practice data: readable images, a spreadsheet with their captions, and equal data for equal seeds."""

import csv

import pytest
from PIL import Image

from jclip.cli import main
from jclip.demo import practice
from jclip.demo.emoji.sources import EmojiPairs
from jclip.errors import JclipError


def rows(folder):
    data = (folder / practice.TABLE).read_bytes()
    assert data.startswith("\ufeff图片,描述\r\n".encode())
    return list(csv.reader(data.decode("utf-8-sig").splitlines()))[1:]


def test_drawn(tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        assert main(["data", "example", str(tmp_path / name), "--drawn", "--pictures", "120", "--seed", str(seed)]) == 0
    found = rows(tmp_path / "one")
    assert len(found) == 120 and len({path for path, _ in found}) == 120
    assert len({caption for _, caption in found}) == 100  # ten colours of ten shapes, 20 of them twice
    for path, caption in found:
        with Image.open(tmp_path / "one" / path) as picture:
            assert picture.size == (practice.SIDE, practice.SIDE)
        assert path.startswith(f"{caption[3:]}/{caption}-")

    def everything(name):
        return {file.name: file.read_bytes() for file in (tmp_path / name).rglob("*") if file.is_file()}

    assert everything("one") == everything("again") != everything("other")


def test_colours_are_those_that_are_named(tmp_path):
    practice.shapes(tmp_path / "x", 100, 0)
    for path, caption in rows(tmp_path / "x"):
        if caption.endswith("色的圆形"):
            with Image.open(tmp_path / "x" / path) as picture:
                middle = picture.getpixel((36, 36))
            expected = practice._COLOURS[caption[0]]
            assert all(abs(a - b) <= 14 for a, b in zip(middle, expected, strict=True))


def test_emoji(tmp_path, emoji_folder):
    words = ["data", "example", str(tmp_path / "mine"), "--pictures", "31", "--data", str(emoji_folder)]
    assert main(words) == 0
    found = rows(tmp_path / "mine")
    assert len(found) == 31 and len({caption for _, caption in found}) == 11  # ten by three artists, one by one
    assert all((tmp_path / "mine" / path).is_file() for path, _ in found)
    assert "OpenMoji (CC-BY-SA-4.0)" in (tmp_path / "mine" / "LICENCES.txt").read_text(encoding="utf-8")
    trained = {name for pair in EmojiPairs(str(emoji_folder), languages=("zh",)).open() for name in pair.captions}
    assert not {caption for _, caption in found} & trained  # no name is among those of the demo
    with pytest.raises(JclipError, match="the demo holds out only 462 emoji images"):
        practice.emoji(tmp_path / "all", emoji_folder, 463, 0)


def test_impossible_requests_are_refused(tmp_path):
    (tmp_path / "there").mkdir()
    for folder, pictures, seed, message in (
        (tmp_path / "there", 3, 0, "exists already"),
        (tmp_path / "new", 0, 0, "--pictures 0 is not possible"),
        (tmp_path / "new", 3, -1, "--seed -1 is not possible"),
    ):
        with pytest.raises(JclipError, match=message):
            practice.shapes(folder, pictures, seed)
    assert not (tmp_path / "new").exists()
