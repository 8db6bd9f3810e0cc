"""Files are paired by the longest name that makes pairs, and every name is accounted for once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.data.importing.pairing import COMPANION, JSON, REPEATED, SECOND, TEXTS, UNKNOWN, pair

BY_HAND = [
    ("IMG_22.07.jpg IMG_22.07.txt", {"IMG_22.07": "01"}, {}),
    ("IMG_22.07.jpg IMG_22.08.txt", {}, {0: "image without a caption", 1: "text without an image"}),
    ("00.jpg 00.txt 00.v2.jpg 00.v2.txt", {"00": "01", "00.v2": "23"}, {}),
    ("00.jpg 00.v2.jpg 00.txt 00.v2.txt", {"00": "02", "00.v2": "13"}, {}),
    ("00.jpg 00.txt 00.v2.jpg", {"00": "01"}, {2: SECOND}),
    ("00.jpg 00.v2.jpg 00.v2.txt", {"00.v2": "12"}, {0: "image without a caption"}),
    ("000.image.png 000.caption.txt", {"000": "01"}, {}),  # webdataset cuts at the first dot
    ("000.jpg 000.caption.txt 000.cls", {"000": "01"}, {}),
    ("0.json 0.txt 0.jpg", {"0": "21"}, {}),  # a text rather than a field
    ("0.png 0.JPG 0.Json", {"0": "12"}, {0: SECOND}),  # the usual kind of picture
    ("a.b.jpg a.c.txt a.d.jpg a.d.txt", {"a.d": "23"}, {0: "image without a caption", 1: "text without an image"}),
    ("a.jpg a.txt a.jpg a.txt", {"a": "01"}, {2: REPEATED, 3: REPEATED}),
    ("a.avif a.caption", {"a": "01"}, {}),
    ("README b", {}, {0: UNKNOWN, 1: UNKNOWN}),
    ("2.0 (x).jpg 2.0 (x).json".replace(" (", "_("), {"2.0_(x)": "01"}, {}),
]


@pytest.mark.parametrize(("names", "pairs", "lost"), BY_HAND)
def test_by_hand(names, pairs, lost):
    found = pair(names.split())
    assert {one.key: f"{one.picture}{one.caption}" for one in found.pairs} == pairs
    assert found.lost == lost


def test_what_belongs_to_a_pair_is_not_lost():
    found = pair(["a.jpg", "a.txt", "a.json", "a.alt.txt", "a.npy", "b.npy"])
    assert (found.lost, found.beside) == ({}, {2: COMPANION, 3: COMPANION, 4: COMPANION, 5: UNKNOWN})
    assert [one[1:] for one in pair(["a.jpg", "a.txt", "a.json"], JSON).pairs] == [(0, 2)]


_words = st.sampled_from(["a", "b", "07", "v2", "0 (x)", ""])
_names = st.builds(
    lambda parts, end: ".".join([*parts, end]),
    st.lists(_words, min_size=1, max_size=3),
    st.sampled_from(["jpg", "PNG", "avif", "txt", "json", "caption", "cls", "x y", ""]),
)


@given(st.lists(_names, max_size=14))
def test_every_name_is_accounted_for_once(names):
    found = pair(names)
    taken = [number for one in found.pairs for number in (one.picture, one.caption)]
    assert sorted([*taken, *found.lost, *found.beside]) == list(range(len(names)))
    for one in found.pairs:
        assert all(names[number].startswith(f"{one.key}.") for number in one[1:])
        assert names[one.caption].rpartition(".")[2] in (*TEXTS, *JSON)
    # An image and a caption with the same full name are always paired.
    left = {(names[n].rpartition(".")[0], names[n][-3:].lower() in ("jpg", "png", "vif")) for n in found.lost
            if found.lost[n] in ("image without a caption", "text without an image")}  # fmt: skip
    assert not any((stem, not kind) in left for stem, kind in left)


@given(st.lists(st.from_regex(r"[a-z0-9 _-]{1,5}(\.[a-z0-9 _-]{1,5}){0,3}", fullmatch=True), unique=True, max_size=9))
def test_whole_pairs_are_all_found_whatever_dots_they_have(keys):
    names = sorted(f"{key}.{end}" for key in keys for end in ("jpg", "txt"))
    found = pair(names)
    assert {one.key for one in found.pairs} == set(keys)
    assert not found.lost
    assert not found.beside
