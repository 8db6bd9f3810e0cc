"""Against the originals: cn_clip's tokenizer, SentencePiece itself, open_clip's tokenizer."""

import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.data.text import load_tokenizer, train_clip_bpe, train_unigram, wordpiece
from jclip.errors import JclipError
from tests.data.strings import varied

STRINGS = varied(3000)
CORPUS = [
    f"{colour} {thing} {number}"
    for colour in ("red", "blauer", "vert", "红色的", "赤い", "красный")
    for thing in ("apple", "Hund", "maison", "山", "ネコ", "самолёт", "bicycle", "Schmetterling")
    for number in range(12)
] + varied(400, seed=1)


@pytest.fixture(scope="module")
def chinese():
    from cn_clip.clip.bert_tokenizer import default_vocab

    return load_tokenizer(default_vocab())


@pytest.fixture(scope="module")
def clip():
    from open_clip.tokenizer import default_bpe

    return load_tokenizer(default_bpe())


def test_wordpiece_by_hand(tmp_path):
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "app", "##le", "猫", '"', ","]
    tokenizer = wordpiece(lines)
    ids = tokenizer(["Réd apple", "“猫”,猫dog", ""], 9)
    np.testing.assert_array_equal(
        ids, [[2, 4, 5, 6, 3, 0, 0, 0, 0], [2, 8, 7, 8, 9, 7, 1, 3, 0], [2, 3, 0, 0, 0, 0, 0, 0, 0]]
    )
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(tokenizer(["red apple red"], 4), [[2, 4, 5, 3]])  # cut, [SEP] kept


@pytest.mark.parametrize("length", [12, 52])
def test_wordpiece_is_cn_clips(chinese, length):
    from cn_clip.clip import tokenize
    from cn_clip.training.data import _preprocess_text

    assert (chinese.vocab_size, chinese.pad_id) == (21128, 0)
    expected = tokenize([_preprocess_text(text) for text in STRINGS], length).numpy()
    np.testing.assert_array_equal(chinese(STRINGS, length), expected)


@given(st.text(max_size=40))
def test_wordpiece_is_cn_clips_on_any_text(text):
    from cn_clip.clip import tokenize
    from cn_clip.clip.bert_tokenizer import default_vocab
    from cn_clip.training.data import _preprocess_text

    tokenizer = _cached(default_vocab())
    np.testing.assert_array_equal(tokenizer([text], 52), tokenize(_preprocess_text(text)).numpy())


def test_clip_bpe_is_open_clips(clip):
    from open_clip.tokenizer import SimpleTokenizer

    original = SimpleTokenizer()
    assert clip.vocab_size == original.vocab_size == 49408
    for length in (10, 77):
        ids = clip(STRINGS, length)
        np.testing.assert_array_equal(ids, original(STRINGS, length).numpy())
        assert (ids.max(axis=1) == 49407).all()  # the tower finds the end of text as the largest id


def test_trained_clip_bpe_has_clips_layout():
    tokenizer = train_clip_bpe(CORPUS, 590)
    assert tokenizer.vocab_size == 590
    ids = tokenizer(["red apple", "never seen Ω", ""], 24)
    assert ids[0, 0] == 588 and (ids.max(axis=1) == 589).all()
    assert (ids[0] > 512).sum() >= 4  # words of the corpus are merged
    assert ids[1].max() == 589 and (ids[1] < 512).sum() > 0  # and any other is spelt in bytes


@pytest.mark.parametrize("coverage", [1.0, 0.99])
def test_unigram_is_sentencepiece_in_fairseqs_order(coverage, tmp_path):
    import sentencepiece

    from jclip.data._unigram import train

    data = train(CORPUS, 900, coverage)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(data)
    tokenizer = load_tokenizer(tmp_path)
    original = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (900, 1)
    texts = [text for text in STRINGS if _is_plain(text)]
    assert len(texts) > 1500
    different = 0
    for text, ids in zip(texts, tokenizer.encode(texts, 10_000), strict=True):
        expected = original.encode(text)
        assert (ids[0], ids[-1]) == (0, 2)
        different += ids[1:-1] != [3 if i == original.unk_id() else i + 1 for i in expected]
    assert different <= len(texts) // 200  # cuts that score the same are resolved otherwise


def test_unigram_is_transformers_xlm_roberta(tmp_path):
    from transformers import XLMRobertaTokenizer

    ours = train_unigram(CORPUS, 900)
    ours.save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    theirs = XLMRobertaTokenizer(vocab=[tuple(piece) for piece in model["vocab"]])
    texts = ["red apple 7", "blauer  Hund", "红色的山", "", "XYZ самолёт"]
    ids = theirs(texts, padding="max_length", max_length=20)["input_ids"]
    np.testing.assert_array_equal(ours(texts, 20), ids)


@pytest.mark.parametrize("train", [train_unigram, train_clip_bpe])
def test_training_does_not_depend_on_the_texts_order(train, tmp_path):
    train(CORPUS, 900).save(tmp_path / "a")
    train(CORPUS[::-1], 900).save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_training_is_the_same_in_another_process():
    code = (
        "import hashlib, pathlib, tempfile\n"
        "from tests.data.test_text import CORPUS\n"
        "from jclip.data.text import train_clip_bpe, train_unigram\n"
        "for train in train_unigram, train_clip_bpe:\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        train(CORPUS, 900).save(pathlib.Path(folder))\n"
        "        files = sorted(pathlib.Path(folder).iterdir())\n"
        "        print(hashlib.sha256(b''.join(f.read_bytes() for f in files)).hexdigest())\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.split()) == 2


def test_saved_tokenizers_come_back(chinese, clip, tmp_path):
    for tokenizer in (chinese, clip, train_unigram(CORPUS, 900), train_clip_bpe(CORPUS, 590)):
        folder = tmp_path / f"{tokenizer.kind}{tokenizer.vocab_size}"
        tokenizer.save(folder)
        back = load_tokenizer(folder)
        assert (back.kind, back.vocab_size, back.pad_id) == (tokenizer.kind, tokenizer.vocab_size, tokenizer.pad_id)
        np.testing.assert_array_equal(back(STRINGS[:300], 32), tokenizer(STRINGS[:300], 32))


def test_errors_name_the_file_and_the_mend(tmp_path):
    with pytest.raises(JclipError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(JclipError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(JclipError, match=r"vocab\.txt has no \[PAD\]"):
        load_tokenizer(tmp_path)
    (tmp_path / "x.model").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(JclipError, match=r"x\.model is not a SentencePiece model"):
        load_tokenizer(tmp_path / "x.model")
    (tmp_path / "merges.txt").write_text("#version\none two three\n")
    with pytest.raises(JclipError, match=r"merges\.txt is no list of byte-pair merges"):
        load_tokenizer(tmp_path / "merges.txt")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(JclipError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "jclip_tokenizer.json").write_text('{"format": 1, "kind": "morse"}')
    with pytest.raises(JclipError, match="kind 'morse'"):
        load_tokenizer(tmp_path)
    with pytest.raises(JclipError, match="no unigram vocabulary of 20 can be trained: .*18 vs"):
        train_unigram(CORPUS, 20)
    with pytest.raises(JclipError, match="no unigram vocabulary of 200"):
        train_unigram([], 200)
    with pytest.raises(JclipError, match="give it 514 or more"):
        train_clip_bpe(CORPUS, 100)
    with pytest.raises(JclipError, match="context length of 2"):
        wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])(["a"], 2)


def _is_plain(text):
    # Special tokens in a text are recognised by SentencePiece itself; runs of one letter can be cut in many ways that
    # score the same; the engine normalises combining marks and what they stand on letter by letter.
    odd = any(unicodedata.category(c) in ("Mn", "Cf", "Cc", "Zs") and c != " " for c in text)
    return not (odd or "<s>" in text or "xxx" in text)


_tokenizers = {}


def _cached(path):
    return _tokenizers.setdefault(path, load_tokenizer(path))
