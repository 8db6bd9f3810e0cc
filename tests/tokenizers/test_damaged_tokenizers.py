"""Damaged or malicious tokenizer files are refused when they are read, in little memory."""

import base64
import gzip
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.tokenizers import _clip_bpe
from jclip.tokenizers._charsmap import check_charsmap
from jclip.tokenizers.text import load_tokenizer, train_unigram

BERT = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n"


@pytest.fixture(scope="module")
def trained():
    return train_unigram(["a cat sat", "the dog ran", "red apple", "blue castle and sea"] * 3, 40)


@pytest.fixture(scope="module")
def record(trained):
    return trained.engine_json()


@pytest.fixture
def charsmap(record):
    return base64.b64decode(json.loads(record)["normalizer"]["precompiled_charsmap"])


def varint(number):
    last = number < 128
    return bytes([number]) if last else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text, score=0.0):
    return field(1, field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score))


PIECES = b"".join(map(piece, ("<unk>", "<s>", "</s>", "▁a", "c")))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (piece("c", -3), "has the piece 'c' twice"),
        (piece("d", np.nan), "the score of 'd' is not a finite number"),
        (piece("d", -np.inf), "the score of 'd' is not a finite number"),
        (b"\xff" * 1000, "a number of more than 64 bits"),
        (b"\x0a\x7f", "it ends too early"),
        (field(1, 10**18), "damaged"),
        (field(1, field(1, 5_000_000_000)), "damaged"),  # bytes(5_000_000_000) would be 5 GB
        (field(3, field(2, 2_000_000_000)), "damaged"),
        (field(3, field(2, b"\xff\xff\xff\x7fabc")), "its precompiled_charsmap is cut off"),
    ],
)
def test_sentencepiece(tmp_path, more, says):
    file = tmp_path / "sentencepiece.bpe.model"
    file.write_bytes(PIECES)
    assert load_tokenizer(file).encode(["a c"], 9) == [[0, 4, 3, 5, 2]]
    file.write_bytes(PIECES + more)
    tracemalloc.start()
    try:
        with pytest.raises(JclipError) as caught:
            load_tokenizer(file)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


def added(identifier, content="xx"):
    return lambda data: data["added_tokens"].append({"id": identifier, "content": content})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data["model"]["vocab"].append(data["model"]["vocab"][7]), " twice"),
        (lambda data: data["model"]["vocab"].__setitem__(7, ["q", float("nan")]), "the score of 'q'"),
        (lambda data: data["model"]["vocab"].__setitem__(7, ["q", 10**400]), "cannot be read"),
        (added(9999), "its added token 'xx' does not follow the others"),
        (added(5), "its added token 'xx' does not follow the others"),
        (added(9999, 7), "cannot be read"),
        (lambda data: data["normalizer"].update(precompiled_charsmap="%%%"), "cannot be read"),
        (lambda data: data["normalizer"].update(precompiled_charsmap=7), "cannot be read"),
    ],
)
def test_a_tokenizer_json_of_xlm_rs_kind(tmp_path, record, change, says):
    data = json.loads(record)
    change(data)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(JclipError) as caught:
        load_tokenizer(file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


def test_sentencepieces_own_map_passes_and_no_part_of_it_does(charsmap):
    check_charsmap(charsmap)
    check_charsmap(b"")
    size = struct.unpack_from("<I", charsmap)[0]
    for kept in (3, 4, size // 2, size):
        with pytest.raises(ValueError, match="cut off"):
            check_charsmap(charsmap[:kept])
    with pytest.raises(ValueError, match="a replacement that does not exist"):
        check_charsmap(charsmap[: 4 + size])


@given(trie=st.binary(min_size=4, max_size=4096), replacements=st.text(max_size=20))
def test_the_library_does_not_panic_on_any_accepted_map(trie, replacements):
    # A panic of the library is not an ordinary exception: it would end the process that encodes.
    from tokenizers import normalizers

    trie = trie[: len(trie) // 4 * 4]
    data = struct.pack("<I", len(trie)) + trie + replacements.encode()
    try:
        check_charsmap(data)
    except ValueError:
        return
    normalizers.Precompiled(data).normalize_str("a cat ﬁ Ａ é \u3000 \U0010ffff")


@given(place=st.integers(0, 10**6), value=st.integers(0, 2**32 - 1))
def test_a_damaged_unit_is_detected_or_harmless(trained, place, value):
    from tokenizers import normalizers

    data = bytearray(base64.b64decode(json.loads(trained.engine_json())["normalizer"]["precompiled_charsmap"]))
    units = struct.unpack_from("<I", data)[0] // 4
    struct.pack_into("<I", data, 4 + 4 * (place % units), value)
    try:
        check_charsmap(bytes(data))
    except ValueError:
        return
    normalizers.Precompiled(bytes(data)).normalize_str("a cat ﬁ Ａ é \u3000 \U0010ffff ㌀ ｶﾞ")


def test_a_small_archive_of_merges_that_unpacks_to_much(tmp_path, monkeypatch):
    monkeypatch.setattr(_clip_bpe, "_LARGEST", 1 << 20)
    file = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    file.write_bytes(gzip.compress(b"#version\n" + b"a b\n" * (16 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(JclipError, match="holds more than 1 MiB: it is not a list of byte-pair merges"):
            load_tokenizer(file)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("settings", [{"99": {"content": "zz"}}, {"9" * 5000: {"content": "zz"}}, {"8": 7}, [7]])
def test_added_ids_outside_the_vocabulary_are_refused(tmp_path, settings):
    (tmp_path / "vocab.txt").write_text(BERT, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": settings}), encoding="utf-8")
    with pytest.raises(JclipError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer_config.json"))
