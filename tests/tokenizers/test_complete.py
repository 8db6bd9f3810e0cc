"""tokenizer.json of every kind gives jclip's ids in the `tokenizers` library. Slow tests compare 12,000 strings."""

import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine

from jclip.names import TokenizerKind
from jclip.tokenizers._bert_files import BertPieces
from jclip.tokenizers._complete import keeps_case
from jclip.tokenizers._unigram import Unigram
from jclip.tokenizers._wordpiece import WordPiece
from jclip.tokenizers.text import Tokenizer, load_tokenizer
from tests.tokenizers.strings import varied
from tests.tokenizers.test_text import at_most, trained

CLIP_DIFFERENT = 0.001
"""Share of the drawn strings on which CLIP's may differ, besides two of the fixed ones: mojibake, rare entities."""


def chinese(kind: TokenizerKind = "wordpiece"):
    from cn_clip.clip.bert_tokenizer import default_vocab

    return load_tokenizer(default_vocab(), kind)


def clip():
    from open_clip.tokenizer import default_bpe

    return load_tokenizer(default_bpe())


def cased():
    return Tokenizer(WordPiece(BertPieces(chinese().tokens, (), {"do_lower_case": False})))


def xlm_r():
    return Tokenizer(Unigram.from_model(trained(1.0)))


KINDS = {"wordpiece": chinese, "cased": cased, "bert": lambda: chinese("bert"), "xlmr": xlm_r}


def different(tokenizer, texts, length):
    """Returns the texts whose ids differ, and checks the padding."""
    return compared(tokenizer, Engine.from_str(tokenizer.complete_json(length)), texts, length)


def compared(tokenizer, engine, texts, length):
    wrong = []
    for text, ids, each in zip(texts, tokenizer.encode(texts, length), engine.encode_batch(texts), strict=True):
        size = sum(each.attention_mask)
        assert set(each.ids[size:]) <= {tokenizer.pad_id}
        if each.ids[:size] != ids:
            wrong.append(text)
    return wrong


@pytest.mark.parametrize("count", [1500, pytest.param(12_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_same_ids(kind, count):
    tokenizer = KINDS[kind]()
    for length in (3, 12, 52):
        assert different(tokenizer, varied(count), length) == []


@cache
def chinese_and_engine():
    tokenizer = chinese()
    return tokenizer, Engine.from_str(tokenizer.complete_json(52))


@given(st.text(max_size=30))
def test_same_ids_as_chinese_clip_on_any_text(text):
    assert compared(*chinese_and_engine(), [text], 52) == []


@pytest.mark.parametrize("count", [1500, pytest.param(12_000, marks=pytest.mark.slow)])
def test_clips_differs_where_ftfy_repairs(count):
    texts, tokenizer = varied(count), clip()
    assert len(different(tokenizer, texts, 77)) <= 2 + count * at_most(CLIP_DIFFERENT, count)
    ordinary = [
        "A photo of a cat.",
        "it’s “so” said",
        "ΟΔΥΣΣΕΥΣ",
        "１２３ ＦＵＬＬ &amp; ﬁne",
        "一只猫",
        "",
        " a \n b ",
    ]
    assert different(tokenizer, ordinary, 77) == []


@pytest.mark.parametrize("kind", ["wordpiece", "cased", "bert"])
def test_read_back(kind, tmp_path):
    tokenizer, texts = KINDS[kind](), [*varied(300), "Émile “said” ΟΔΥΣΣΕΥΣ"]
    (tmp_path / "tokenizer.json").write_text(tokenizer.complete_json(20), encoding="utf-8")
    back = load_tokenizer(tmp_path, tokenizer.kind)
    assert back.encode(texts, 20) == tokenizer.encode(texts, 20)


def test_another_normalizer_is_not_taken_for_cn_clips():
    steps = json.loads(chinese().complete_json(20))["normalizer"]["normalizers"]
    assert keeps_case(steps) is False
    for number in range(len(steps)):
        assert keeps_case(steps[:number] + steps[number + 1 :]) is None
    assert keeps_case([]) is None
    assert keeps_case([{"type": "Replace", "pattern": {"String": "a"}, "content": "b"}] * 2) is None


def test_by_hand():
    tokenizer = Tokenizer(WordPiece(BertPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "app", "##le", "猫", '"'])))
    engine = Engine.from_str(tokenizer.complete_json(6))
    first, second = engine.encode_batch(["Réd apple", "“猫猫猫猫猫猫"])
    assert first.ids == [2, 4, 5, 6, 3, 0] and second.ids == [2, 8, 7, 7, 7, 3]
    assert first.attention_mask == [1, 1, 1, 1, 1, 0]
