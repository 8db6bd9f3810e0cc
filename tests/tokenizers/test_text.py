"""Tokenizers against cn_clip's, open_clip's and transformers' XLM-R. Slow tests compare 12,000 strings."""

import json
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.tokenizers.text import load_tokenizer, train_clip_bpe, train_unigram, wordpiece
from tests.tokenizers.strings import varied

STRINGS = varied(1500)
CORPUS = [
    f"{colour} {thing} {number}"
    for colour in ("red", "blauer", "vert", "红色的", "赤い", "красный")
    for thing in ("apple", "Hund", "maison", "山", "ネコ", "самолёт", "bicycle", "Schmetterling")
    for number in range(12)
]


@pytest.fixture(params=[3000, pytest.param(12_000, marks=pytest.mark.slow)])
def strings(request):
    return varied(request.param)


@pytest.fixture(scope="module")
def chinese():
    from cn_clip.clip.bert_tokenizer import default_vocab

    return load_tokenizer(default_vocab())


@pytest.fixture(scope="module")
def clip():
    from open_clip.tokenizer import default_bpe

    return load_tokenizer(default_bpe())


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    """Folder with a SentencePiece model of all the scripts."""
    folder = tmp_path_factory.mktemp("xlmr")
    (folder / "sentencepiece.bpe.model").write_bytes(trained(1.0))
    return folder


@cache
def trained(coverage):
    from jclip.tokenizers._unigram import train_model

    return train_model(CORPUS + varied(2500, seed=1), 9000, coverage)


_loaded = cache(load_tokenizer)


def at_most(rate, count):
    """Returns the bound for a share of differences: `rate`, plus three standard errors unless on all 12,000 strings."""
    return rate if count > 12_000 else rate + 3 * (rate * (1 - rate) / count) ** 0.5


def padded(tokenizer, texts, length):
    """Returns the padded ids of a tokenizer of transformers."""
    return np.array(tokenizer(texts, padding="max_length", truncation=True, max_length=length)["input_ids"])


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
def test_wordpiece_is_cn_clips(chinese, length, strings):
    from cn_clip.clip import tokenize
    from cn_clip.training.data import _preprocess_text

    assert (chinese.vocab_size, chinese.pad_id) == (21128, 0)
    expected = tokenize([_preprocess_text(text) for text in strings], length).numpy()
    np.testing.assert_array_equal(chinese(strings, length), expected)


@given(st.text(max_size=40))
def test_wordpiece_is_cn_clips_on_any_text(text):
    from cn_clip.clip import tokenize
    from cn_clip.clip.bert_tokenizer import default_vocab
    from cn_clip.training.data import _preprocess_text

    tokenizer = _loaded(default_vocab())
    np.testing.assert_array_equal(tokenizer([text], 52), tokenize(_preprocess_text(text)).numpy())


def test_wordpiece_differs_from_transformers_as_its_docstring_says(chinese, strings):
    from cn_clip.clip.bert_tokenizer import default_vocab
    from transformers import BertTokenizer

    different = (chinese(strings, 52) != padded(BertTokenizer(default_vocab()), strings, 52)).any(axis=1)
    assert different.mean() <= at_most(0.081, len(strings))
    unquoted = np.array(["“" not in text and "”" not in text for text in strings])
    assert different[unquoted].mean() <= at_most(0.0011, len(strings))


def test_cased_wordpiece_is_cn_clips_code_too(tmp_path, strings):
    from cn_clip.clip.bert_tokenizer import FullTokenizer, default_vocab
    from transformers import BertTokenizer

    shutil.copy(default_vocab(), tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "strip_accents": null}')
    cased = load_tokenizer(tmp_path)
    original = FullTokenizer(do_lower_case=False)
    for text, ids in zip(strings, cased.encode(strings, 10_000), strict=True):
        assert ids[1:-1] == original.convert_tokens_to_ids(original.tokenize(text))
    cased.save(tmp_path / "ours")
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "ours")(strings, 52), cased(strings, 52))
    BertTokenizer(default_vocab(), do_lower_case=False).save_pretrained(tmp_path / "theirs")
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "theirs")(strings, 52), cased(strings, 52))
    (tmp_path / "theirs" / "tokenizer_config.json").unlink()  # tokenizer.json knows it too
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "theirs")(strings, 52), cased(strings, 52))


def test_clip_bpe_is_open_clips(clip, strings):
    from open_clip.tokenizer import SimpleTokenizer

    original = SimpleTokenizer()
    assert clip.vocab_size == original.vocab_size == 49408
    for length in (10, 77):
        ids = clip(strings, length)
        np.testing.assert_array_equal(ids, original(strings, length).numpy())
        assert (ids.max(axis=1) == 49407).all()  # the tower finds the end of text as the largest id


def test_trained_clip_bpe_has_clips_layout():
    tokenizer = train_clip_bpe(CORPUS, 590)
    assert tokenizer.vocab_size == 590
    ids = tokenizer(["red apple", "never seen Ω", ""], 24)
    assert ids[0, 0] == 588 and (ids.max(axis=1) == 589).all()
    assert (ids[0] > 512).sum() >= 4  # words of the corpus are merged
    assert ids[1].max() == 589 and (ids[1] < 512).sum() > 0  # and any other is spelt in bytes


def test_xlmr_is_transformers(sentencepiece_model, tmp_path, strings):
    from transformers import XLMRobertaTokenizer

    ours, theirs = load_tokenizer(sentencepiece_model), XLMRobertaTokenizer.from_pretrained(sentencepiece_model)
    assert (ours.vocab_size, ours.pad_id) == (9000, 1)
    for length in (12, 77):
        np.testing.assert_array_equal(ours(strings, length), padded(theirs, strings, length))
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save(tmp_path / "ours")
    some, expected = strings[:2000], ours(strings[:2000], 77)
    for each in ("theirs", "ours"):
        np.testing.assert_array_equal(load_tokenizer(tmp_path / each)(some, 77), expected)
    np.testing.assert_array_equal(padded(XLMRobertaTokenizer.from_pretrained(tmp_path / "ours"), some, 77), expected)


@pytest.mark.parametrize("coverage", [1.0, pytest.param(0.99, marks=pytest.mark.slow)])
def test_xlmr_is_sentencepiece_in_fairseqs_order(coverage, tmp_path, strings):
    import sentencepiece

    data = trained(coverage)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(data)
    original = sentencepiece.SentencePieceProcessor(model_proto=data)
    different = 0
    for text, ids in zip(strings, load_tokenizer(tmp_path).encode(strings, 10_000), strict=True):
        expected = [3 if i == original.unk_id() else i + 1 for i in original.encode(text)]
        different += ids != [0, *expected, 2]
    assert different / len(strings) <= at_most(0.028, len(strings))  # as the docstring of _unigram.py says


@pytest.mark.parametrize("train_model", [train_unigram, train_clip_bpe])
def test_training_does_not_depend_on_the_texts_order(train_model, tmp_path):
    train_model(CORPUS, 900).save(tmp_path / "a")
    train_model(CORPUS[::-1], 900).save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_training_is_the_same_in_another_process():
    code = (
        "import hashlib, pathlib, tempfile\n"
        "from tests.tokenizers.test_text import CORPUS\n"
        "from jclip.tokenizers.text import train_clip_bpe, train_unigram\n"
        "for train_model in train_unigram, train_clip_bpe:\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        train_model(CORPUS, 900).save(pathlib.Path(folder))\n"
        "        files = sorted(pathlib.Path(folder).iterdir())\n"
        "        print(hashlib.sha256(b''.join(f.read_bytes() for f in files)).hexdigest())\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.split()) == 2


def test_saved_tokenizers_round_trip(chinese, clip, tmp_path):
    for tokenizer in (chinese, chinese.as_kind("bert"), clip, train_unigram(CORPUS, 900), train_clip_bpe(CORPUS, 590)):
        folder = tmp_path / f"{tokenizer.kind}{tokenizer.vocab_size}"
        tokenizer.save(folder)
        back = load_tokenizer(folder)
        assert (back.kind, back.vocab_size, back.pad_id) == (tokenizer.kind, tokenizer.vocab_size, tokenizer.pad_id)
        np.testing.assert_array_equal(back(STRINGS[:300], 32), tokenizer(STRINGS[:300], 32))


def save_as_transformers_did(name, tokenizer, folder):
    """Saves a vocabulary as several files, as on the hub."""
    from transformers import BertTokenizer, CLIPTokenizer

    tokenizer.save(folder)
    (folder / "jclip_tokenizer.json").unlink()
    if name == "clip":
        ids = {token: number for number, token in enumerate(tokenizer.tokens)}
        (folder / "vocab.json").write_text(json.dumps(ids))
        CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    elif name == "chinese":
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


@pytest.mark.parametrize("name", ["chinese", "clip"])
def test_a_folder_of_several_files(name, request, tmp_path):
    tokenizer, texts = request.getfixturevalue(name), STRINGS[:500]
    save_as_transformers_did(name, tokenizer, tmp_path / "a")
    expected, own = tokenizer(texts, 40), {"chinese": ["vocab.txt"], "clip": ["merges.txt", "vocab.json"]}[name]
    for gone in ([], own, ["tokenizer.json"]):
        folder = tmp_path / f"without {gone}"
        shutil.copytree(tmp_path / "a", folder)
        for file in gone:
            (folder / file).unlink()
        back = load_tokenizer(folder)
        # One entry of the Chinese vocabulary is a line separator, and transformers strips it.
        assert [token.strip() for token in back.tokens] == [token.strip() for token in tokenizer.tokens]
        np.testing.assert_array_equal(back(texts, 40), expected)


def test_a_folder_of_xlmr_with_both_its_files(sentencepiece_model, tmp_path):
    tokenizer = load_tokenizer(sentencepiece_model)
    tokenizer.save(tmp_path / "a")
    (tmp_path / "a" / "jclip_tokenizer.json").rename(tmp_path / "a" / "special_tokens_map.json")
    shutil.copy(sentencepiece_model / "sentencepiece.bpe.model", tmp_path / "a")
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "a")(STRINGS, 40), tokenizer(STRINGS, 40))


def test_the_oldest_tokenizer_json_does_not_name_its_model(clip, chinese, sentencepiece_model, tmp_path):
    for name, tokenizer in (("clip", clip), ("chinese", chinese), ("xlmr", load_tokenizer(sentencepiece_model))):
        save_as_transformers_did(name, tokenizer, tmp_path / name)
        file = tmp_path / name / "tokenizer.json"
        data = json.loads(file.read_text())
        del data["model"]["type"]
        if name == "clip":
            data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
        file.write_text(json.dumps(data))
        assert load_tokenizer(file).kind == tokenizer.kind


def model_file(file, model, normalizer=None, added_tokens=()):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"model": model, "normalizer": normalizer, "added_tokens": list(added_tokens)}))
    return file


BERT = {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}}
XLMR = {"type": "Unigram", "unk_id": 3, "vocab": [["<s>", 0], ["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["▁a", -1]]}


def test_tokenizers_of_other_models_are_refused(tmp_path):
    file, settings = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    assert load_tokenizer(model_file(file, BERT)).vocab_size == 4
    assert load_tokenizer(model_file(file, XLMR)).vocab_size == 6  # with <mask>
    with pytest.raises(JclipError, match=r"tokenizer\.json holds a WordLevel tokenizer: jclip reads WordPiece, Unig"):
        load_tokenizer(model_file(file, {"type": "WordLevel", "vocab": {}}))
    with pytest.raises(JclipError, match=r"its ids are not CLIP's \(bytes"):
        load_tokenizer(model_file(file, {"type": "BPE", "vocab": {"Ġ": 0, "t": 1, "Ġt": 2}, "merges": ["Ġ t"]}))
    with pytest.raises(JclipError, match=r"begins with \['<pad>', '</s>', '<unk>'\], not with <s>"):
        load_tokenizer(model_file(file, {**XLMR, "vocab": XLMR["vocab"][1:4]}))
    with pytest.raises(JclipError, match="normalises text by Lowercase, which XLM-R's does not"):
        load_tokenizer(model_file(file, XLMR, {"type": "Lowercase"}))
    with pytest.raises(JclipError, match="normalises text by NFKC, which BERT's does not"):
        load_tokenizer(model_file(file, BERT, {"type": "NFKC"}))
    with pytest.raises(JclipError, match="its 5 ids are not 0 to 4"):
        load_tokenizer(model_file(file, BERT, None, [{"id": 9, "content": "<extra>"}]))
    with pytest.raises(JclipError, match="strip_accents False, .*, but Chinese-CLIP strips accents exactly where it"):
        load_tokenizer(model_file(file, BERT, {"type": "BertNormalizer", "lowercase": True, "strip_accents": False}))
    assert load_tokenizer(file, "bert").kind == "bert"
    settings.write_text('{"do_lower_case": "no"}')
    with pytest.raises(JclipError, match=r"tokenizer\.json: do_lower_case is 'no', but must be true or false"):
        load_tokenizer(file, "bert")
    settings.write_text('{"tokenize_chinese_chars": false}')
    with pytest.raises(JclipError, match="tokenize_chinese_chars False"):
        load_tokenizer(model_file(file, BERT))
    settings.write_text("{'do_lower_case': true}")
    with pytest.raises(JclipError, match=r"tokenizer_config\.json cannot be read \(Expecting .*\): correct it"):
        load_tokenizer(file)
    for record, reason in (
        ("[]", "it does not hold a JSON object"),
        ('{"added_tokens_decoder": {"x": {"content": "a"}}}', "'x' is not an id"),
        ('{"added_tokens_decoder": {"5": {}}}', "it has no 'content'"),
        ("[" * 100_000, "it is nested too deep"),
    ):
        settings.write_text(record)
        with pytest.raises(JclipError, match=rf"tokenizer_config\.json cannot be read \({reason}\): correct it"):
            load_tokenizer(file)
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "merges.txt").write_text("#version\nĠ t\n")
    (tmp_path / "gpt" / "vocab.json").write_text('{"Ġ": 0, "t": 1, "Ġt": 2}')
    with pytest.raises(JclipError, match=r"merges\.txt: its ids are not CLIP's"):
        load_tokenizer(tmp_path / "gpt")


def test_errors_name_the_file_and_the_remedy(tmp_path):
    with pytest.raises(JclipError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(JclipError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(JclipError, match=r"vocab\.txt has no \[PAD\], so it is not BERT's: fetch it again, or"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(JclipError, match=r"vocab\.txt cannot be read \(it is not UTF-8 text\): correct it"):
        load_tokenizer(tmp_path)
    (tmp_path / "x.model").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(JclipError, match=r"x\.model is not a SentencePiece model"):
        load_tokenizer(tmp_path / "x.model")
    (tmp_path / "merges.txt").write_text("#version\none two three\n")
    with pytest.raises(JclipError, match=r"merges\.txt is not a list of byte-pair merges"):
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
