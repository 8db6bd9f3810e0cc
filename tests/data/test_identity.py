"""Identities of images and texts: which are equal, which differ, and identities in older folders and mixtures."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.data.identity import picture_identity, plain_text, text_identity
from jclip.data.inspecting.statistics import inspect
from jclip.data.sources.folders import PairFolder, Shard
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.data.sources.synthetic import SyntheticPairs, write_tokenizer
from jclip.data.sources.writing import gather_shards, write_pairs, write_shard
from jclip.images.preprocess import Preprocessing
from jclip.tokenizers.text import load_tokenizer
from tests.data.loading import make_batches
from tests.evaluate.cn_clip_data import png
from tests.tokenizers.strings import varied

ONE = [
    ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
    ("\u212b", "\u00c5"),  # the angstrom sign and the letter
    ("\uac00", "\u1100\u1161"),  # Hangul
    ("\u304c", "\u304b\u3099"),  # kana with a voicing mark
    ("\u8c48", "\uf900"),  # a compatibility ideograph
    ("\u72d7", "\u72d7\u3000"),
    ("\u72d7", "\u72d7\u00a0\n"),
    ("a red apple", " a  red\tapple\r\n"),
    ("a red apple", "a\u2003red\u3000apple"),
]
APART = [
    ("dog", "Dog"),
    ("dog", "dog."),
    ("\u72d7\u3002", "\u72d7."),
    ("m2", "m\u00b2"),
    ("\u2460", "1"),
    ("\uff21", "A"),
    ("\u7ea2 \u82f9\u679c", "\u7ea2\u82f9\u679c"),
    ("\u53d1", "\u767c"),  # simplified and traditional
    ("cafe", "caf\u00e9"),
    ("ab", "a b"),
    ("a\x85b", "a b"),  # a control character
    ("", "a"),
]


@pytest.mark.parametrize(("one", "other"), ONE)
def test_equal_texts_have_one_identity(one, other):
    assert one != other
    assert text_identity(one) == text_identity(other)


@pytest.mark.parametrize(("one", "other"), APART)
def test_different_texts_have_different_identities(one, other):
    assert text_identity(one) != text_identity(other)


@given(
    st.text(max_size=20), st.text(max_size=20), st.sampled_from(["NFC", "NFD"]), st.sampled_from(" \t\n\u3000\u00a0")
)
def test_the_identity_of_any_text_ignores_only_its_unicode_form_and_spacing(text, other, form, space):
    spaced = space + unicodedata.normalize(form, text).replace(" ", space * 2) + space
    assert text_identity(spaced) == text_identity(text)
    assert plain_text(plain_text(text)) == plain_text(text)
    assert (text_identity(text) == text_identity(other)) == (plain_text(text) == plain_text(other))
    assert 0 <= text_identity(text) < 2**63


def test_identities_never_change():
    """Other versions read them from data folders."""
    assert picture_identity(b"") == text_identity(" \n") == 6510301506637419378
    assert text_identity(" 红苹果") == 5441564012150123673


def _wordpiece():
    from cn_clip.clip.bert_tokenizer import default_vocab

    return load_tokenizer(default_vocab())


def _clip_bpe():
    from open_clip.tokenizer import default_bpe

    return load_tokenizer(default_bpe())


@pytest.mark.parametrize("load", [_wordpiece, lambda: _wordpiece().as_kind("bert"), _clip_bpe])
def test_tokenizers_read_a_text_and_its_plain_form_alike(load):
    """Texts with one identity are equal for the models too."""
    tokenizer, texts = load(), varied(1000)
    np.testing.assert_array_equal(tokenizer(texts, 200), tokenizer([plain_text(text) for text in texts], 200))


class _Older(type(PAIRS)):  # type: ignore[misc]
    """Format of older folders: ids from the source, or made up by an importer."""

    def features(self, classes):
        found = super().features(classes)
        return {**{name: one for name, one in found.items() if "source" not in name}, "text_id": found["image_id"]}

    def example(self, record):
        return {
            "image": record.image,
            "captions": list(record.captions),
            "languages": list(record.languages),
            "image_id": record.source_image_id,
            "text_id": record.source_text_ids[0],
            "text_ids": list(record.source_text_ids),
        }


def test_an_older_folder_gets_identities_and_keeps_its_ids(tmp_path):
    stored = [StoredPair(png(n // 2), ("\u72d7", "dog "), ("zh", "en"), 70 + n, (3, 3 + n)) for n in range(4)]
    write_shard(tmp_path / "shard", _Older(), stored)
    (tmp_path / "old").mkdir()
    gather_shards(tmp_path / "old", _Older(), {"train": [Shard(tmp_path / "shard", 4)]})
    write_pairs(tmp_path / "new", stored)
    old, new = (list(PairFolder(str(tmp_path / name)).open()) for name in ("old", "new"))
    assert old == new
    assert [pair.source_image_ids for pair in old] == [(70,), (71,), (72,), (73,)]
    assert [pair.source_text_ids for pair in old] == [(3, 3), (3, 4), (3, 5), (3, 6)]
    assert len({pair.image_ids for pair in old}) == 2


def test_folders_share_identities_in_a_batch_and_other_sources_do_not(tmp_path):
    for name, start in (("a", 0), ("b", 4)):
        write_pairs(tmp_path / name, [StoredPair(png(n), (f"red apple {n}",)) for n in range(start, start + 8)])
    words = write_tokenizer("wordpiece", tmp_path / "words")
    sources = [PairFolder(str(tmp_path / "a")), SyntheticPairs(count=8, size=8), PairFolder(str(tmp_path / "b"))]
    options = {"seed": 0, "stage": 0, "tokenizer": words, "context_length": 12, "preprocessing": Preprocessing(size=8)}
    batch = make_batches(*sources, batch_size=24, **options)[0]
    for name in ("image_id", "text_id"):
        assert len(set(batch[name].tolist())) == 8 + 4 + 8
        assert ((batch[name] >= 2**30) & (batch[name] < 2**30 + 8)).sum() == 8
    alone = make_batches(*sources[1:2], batch_size=8, **options)[0]
    assert sorted(alone["image_id"].tolist()) == sorted(alone["text_id"].tolist()) == list(range(8))


def test_inspect_counts_by_identity(tmp_path):
    captions = [("caf\u00e9",), ("cafe\u0301 ",), ("Caf\u00e9", "dog")]
    write_pairs(tmp_path / "folder", [StoredPair(png(0), texts) for texts in captions])
    assert inspect(tmp_path / "folder", "train").as_json()["same"] == {"pictures": 2, "texts": 1, "units": 1}
