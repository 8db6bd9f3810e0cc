"""Which concepts and names are held out: counts and members checked by hand against sha256."""

import hashlib
from collections import Counter

import pytest

from jclip.demo.emoji.names import natural
from jclip.demo.emoji.protocol import LANGUAGES, Concept, concepts, is_heldout, is_heldout_pair, spelt_similarly, twins


def test_things_one_can_draw():
    everything = concepts()
    drawable = [concept for concept in everything if concept.drawable]
    assert (len(everything), len(drawable)) == (1663, 805)
    assert {concept.group for concept in drawable} == {
        "Animals & Nature",
        "Food & Drink",
        "Activities",
        "Objects",
        "Travel & Places",
    }
    assert not any(concept.subgroup == "time" for concept in drawable)
    assert len({concept.codepoints for concept in everything}) == 1663
    assert Concept("U+1F408-U+200D-U+2B1B", "", "").text == "\U0001f408\u200d\u2b1b"


def test_one_fifth_is_held_out_by_the_codepoints_hash():
    remainders = {
        "U+1F415": 2,
        "U+1F34E": 4,
        "U+1F408-U+200D-U+2B1B": 1,
    }  # the remainder of sha256, as one number, by 5
    for codepoints, remainder in remainders.items():
        assert int(hashlib.sha256(codepoints.encode()).hexdigest(), 16) % 5 == remainder
        assert not is_heldout(codepoints)
    # 256 is 1 modulo 5, so the remainder of the number is that of the sum of its bytes.
    for concept in concepts():
        digest = hashlib.sha256(concept.codepoints.encode()).digest()
        assert is_heldout(concept.codepoints) == (sum(digest) % 5 == 0)
    assert Counter(concept.role for concept in concepts() if concept.drawable) == {"known": 646, "heldout": 159}


def test_one_translation_in_ten_is_held_out_english_never():
    assert [each for each in LANGUAGES if is_heldout_pair("U+1F415", each)] == ["pt"]
    assert [each for each in LANGUAGES if is_heldout_pair("U+1F34E", each)] == ["ko", "id"]
    known = [concept.codepoints for concept in concepts() if concept.drawable and concept.role == "known"]
    counts = {each: sum(is_heldout_pair(codepoints, each) for codepoints in known) for each in LANGUAGES}
    assert counts == {
        **{"en": 0, "zh": 51, "ja": 60, "ko": 48, "de": 68, "fr": 68, "es": 65},
        **{"it": 70, "pt": 58, "ru": 65, "ar": 69, "fa": 68, "id": 66, "tr": 80},
    }


def test_twins_by_hand():
    one = [("a", 1), ("b", 2), ("c", 1), ("d", 3), ("e", 1)]  # c and e are a's copies
    other = [("a", 10), ("b", 11), ("c", 12), ("d", 3), ("e", 13)]  # d is the same by both
    assert twins({"one": one}) == {"c", "e"}
    assert twins({"one": one, "other": other}) == {"c", "d", "e"}
    assert twins({"other": other}) == set()


def test_natural_names():
    assert natural(":roter_apfel:") == "roter apfel"
    assert natural(":T-Rex:") == "T-Rex"
    assert natural(":红苹果:") == "红苹果"


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("banane", "Banana", True),
        ("金魚", "金鱼", True),
        ("pomme", "apple", False),
        ("狗", "犬", False),
    ],
)
def test_names_that_are_spelt_alike(name, other, expected):
    assert spelt_similarly(name, other) == expected
