"""BERT's own tokenization: ids equal to those of transformers' BertTokenizer. Slow tests compare 12,000 strings."""

import shutil
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.tokenizers.text import load_tokenizer, train_unigram, wordpiece
from tests.tokenizers.strings import varied
from tests.tokenizers.test_text import CORPUS, STRINGS, padded

_loaded = cache(load_tokenizer)


@cache
def _of_transformers(vocabulary):
    from transformers import BertTokenizer

    return BertTokenizer(vocabulary)


@pytest.fixture(scope="module")
def chinese():
    from cn_clip.clip.bert_tokenizer import default_vocab

    return load_tokenizer(default_vocab())


@pytest.mark.parametrize(
    ("length", "count"),
    [(52, 1500), *(pytest.param(length, 12_000, marks=pytest.mark.slow) for length in (52, 512))],
)
def test_bert_is_transformers(chinese, length, count):
    from cn_clip.clip.bert_tokenizer import default_vocab
    from transformers import BertTokenizer

    ours, strings = chinese.as_kind("bert"), varied(count)
    assert (ours.kind, ours.vocab_size, ours.pad_id) == ("bert", 21128, 0)
    expected = padded(BertTokenizer(default_vocab()), strings, length)
    np.testing.assert_array_equal(ours(strings, length), expected)
    # Both kinds read the same files by different rules.
    np.testing.assert_array_equal(load_tokenizer(default_vocab(), "bert")(strings, length), expected)
    np.testing.assert_array_equal(ours.as_kind("wordpiece")(strings, length), chinese(strings, length))


def test_bert_by_hand(tmp_path):
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "app", "##le", "猫", '"', ",", "“", "[", "]", "sep"]
    bert = wordpiece(lines).as_kind("bert")
    ids = bert(["Réd apple", "“猫”,猫[SEP]red", "[sep]", "[MASK]"], 9)
    expected = [
        [2, 4, 5, 6, 3, 0, 0, 0, 0],
        [2, 10, 7, 1, 9, 7, 3, 4, 3],
        [2, 11, 13, 12, 3, 0, 0, 0, 0],  # not its letter case
        [2, 11, 1, 12, 3, 0, 0, 0, 0],  # a token that the vocabulary lacks
    ]
    np.testing.assert_array_equal(ids, expected)


@given(st.text(max_size=40))
def test_bert_is_transformers_on_any_text(text):
    from cn_clip.clip.bert_tokenizer import default_vocab

    ours, theirs = _loaded(default_vocab(), "bert"), _of_transformers(default_vocab())
    np.testing.assert_array_equal(ours([text], 52), padded(theirs, [text], 52))


QUICK = [(None, True, True), (True, False, True), (False, True, False), (None, False, False)]


@pytest.mark.parametrize(
    ("accents", "lower", "split"),
    [
        pytest.param(*settings, marks=[] if settings in QUICK else [pytest.mark.slow])
        for settings in product((None, True, False), (True, False), (True, False))
    ],
)
def test_berts_settings_are_followed(accents, lower, split, tmp_path):
    from cn_clip.clip.bert_tokenizer import default_vocab
    from transformers import BertTokenizer

    some = STRINGS[:1000]
    settings = {"do_lower_case": lower, "strip_accents": accents, "tokenize_chinese_chars": split}
    theirs = BertTokenizer(default_vocab(), **settings)
    expected = padded(theirs, some, 52)
    theirs.save_pretrained(tmp_path / "theirs")
    for gone in ([], ["tokenizer_config.json"], ["tokenizer.json"]):  # both files give the setting
        folder = shutil.copytree(tmp_path / "theirs", tmp_path / f"without {gone}")
        shutil.copy(default_vocab(), folder / "vocab.txt")
        for file in gone:
            (folder / file).unlink()
        ours = load_tokenizer(folder, "bert")
        np.testing.assert_array_equal(ours(some, 52), expected)
        ours.save(folder / "saved")
        np.testing.assert_array_equal(load_tokenizer(folder / "saved")(some, 52), expected)
    if accents in (None, lower) and split:
        assert ours.as_kind("wordpiece").kind == "wordpiece"
    else:
        with pytest.raises(
            JclipError, match=f"vocab.txt sets do_lower_case {lower}, strip_accents {accents}, tokenize"
        ):
            ours.as_kind("wordpiece")


def test_tokens_added_to_a_bert_are_read(tmp_path):
    from cn_clip.clip.bert_tokenizer import default_vocab
    from tokenizers import AddedToken
    from transformers import BertTokenizer

    theirs = BertTokenizer(default_vocab())
    theirs.add_tokens([AddedToken("qqq", single_word=True), AddedToken("<X>", lstrip=True, normalized=False), "猫"])
    theirs.save_pretrained(tmp_path / "theirs")
    texts = ["a qqq qqqq QQQ  <X> <x>b猫狗", "[SEP]qqq<X>", *STRINGS[:500]]
    expected = padded(theirs, texts, 52)
    assert {21128, 21129} <= set(expected[0])
    ours = load_tokenizer(tmp_path / "theirs", "bert")
    ours.save(tmp_path / "ours")
    for back in (ours, load_tokenizer(tmp_path / "ours")):
        assert back.vocab_size == len(theirs) == 21130
        np.testing.assert_array_equal(back(texts, 52), expected)
    file = tmp_path / "ours" / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"21129"', '"21140"'))
    with pytest.raises(JclipError, match=r"tokenizer_config\.json gives <X> another id than .*vocab\.txt: correct it"):
        load_tokenizer(tmp_path / "ours")


def test_a_tokenizer_stays_of_the_kind_it_was_saved_as(chinese, tmp_path):
    text = ["“[SEP]”"]
    ids = {kind: chinese.as_kind(kind).encode(text, 52) for kind in ("wordpiece", "bert")}
    for kind in ids:
        chinese.as_kind(kind).save(tmp_path / kind)
        assert load_tokenizer(tmp_path / kind).encode(text, 52) == ids[kind]
        for wanted in ids:  # unless the other kind is requested
            assert load_tokenizer(tmp_path / kind, wanted).encode(text, 52) == ids[wanted]
    assert ids["wordpiece"] != ids["bert"]
    xlmr = train_unigram(CORPUS, 900)
    xlmr.save(tmp_path / "xlmr")
    assert load_tokenizer(tmp_path / "xlmr", "bert").kind == "xlmr"
    for tokenizer, kind in ((xlmr, "bert"), (chinese, "clip_bpe")):
        with pytest.raises(JclipError, match=f"a {tokenizer.kind} vocabulary does not fit kind {kind}: load another"):
            tokenizer.as_kind(kind)
