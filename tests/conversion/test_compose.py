"""The starting points of both recipes from two checkpoints: copied and new parameters, and their passports."""

import shutil

import numpy as np
import pytest
import torch
import transformers

import jclip
from jclip.bundle import load_bundle, open_bundle
from jclip.cli import main
from jclip.conversion import CheckpointOptions, compose, convert, verify
from jclip.conversion.composing import composed, open_part
from jclip.conversion.parity import passport
from jclip.errors import JclipError
from jclip.io.safetensors import open_safetensors, write_safetensors
from tests.conversion import checkpoints
from tests.conversion.broken import change_json
from tests.models.torch_weights import randomise
from tests.tokenizers.strings import varied


def quiet(what):
    pass


@pytest.fixture(scope="module")
def parts(checkpoint_of, tmp_path_factory):
    """Folders of a CLIP, an XLM-R and a BERT. Read only."""
    place = tmp_path_factory.mktemp("parts")
    (place / "clip").symlink_to(checkpoint_of("clip_hf")[0])
    (place / "xlm-r").symlink_to(checkpoint_of("xlm_r")[0])
    words = checkpoints.bert_config(checkpoints.vocabulary("wordpiece", place / "bert"))
    bert = randomise(transformers.BertForMaskedLM(transformers.BertConfig(**words)))
    checkpoints.save_config(bert, place / "bert")
    # The norms' names of the first converters from TensorFlow.
    state = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in checkpoints.state(bert).items()
    }
    torch.save(state, place / "bert" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return place


def test_altclip_begins_with_clip_and_xlm_r(parts, start):
    made, folder = passport.read(start), start
    start = load_bundle(start)
    clip = transformers.CLIPModel.from_pretrained(parts / "clip").state_dict()
    encoder = transformers.XLMRobertaModel.from_pretrained(parts / "xlm-r").state_dict()
    np.testing.assert_array_equal(
        start.params["image"]["class_embedding"], clip["vision_model.embeddings.class_embedding"]
    )
    np.testing.assert_array_equal(start.params["text"]["projection"]["kernel"], clip["text_projection.weight"].T)
    np.testing.assert_array_equal(start.params["logit_scale"], clip["logit_scale"])
    np.testing.assert_array_equal(start.params["text"]["word_embedding"], encoder["embeddings.word_embeddings.weight"])
    assert start.config.head_width == 28  # the width of CLIP's text states, which the head imitates
    assert (start.tokenizer.kind, start.preprocessing.resize) == ("xlmr", "crop")
    assert made["seed"] == 3
    assert made["new"] == {
        "text/head_norm/scale": {"initialiser": "ones"},
        "text/head_norm/bias": {"initialiser": "zeros"},
        "text/head/kernel": {"initialiser": "normal", "standard_deviation": 0.02},
        "text/head/bias": {"initialiser": "zeros"},
    }
    image, text = (set(source["copied"]) for source in made["sources"])
    assert image | text | made["new"].keys() == open_bundle(folder).tensors().keys()
    assert {"text/projection/kernel", "logit_scale"} == {path for path in image if not path.startswith("image/")}
    kernel = start.params["text"]["head"]["kernel"]
    assert 0.015 < kernel.std() < 0.025 and start.params["text"]["head_norm"]["scale"].tolist() == [1.0] * 36
    assert [source["comparison"]["compared"] for source in made["sources"]] == [True, True]
    assert jclip.load(folder).encode_text(["红苹果"]).shape == (1, 13)


def test_chinese_clip_begins_with_clip_and_a_bert(parts, tmp_path):
    made = compose(str(parts / "clip"), str(parts / "bert"), tmp_path / "start", report=quiet)
    start = load_bundle(tmp_path / "start")
    assert made["new"] == {"text/projection/kernel": {"initialiser": "normal", "standard_deviation": 36**-0.5}}
    # Nothing of CLIP's text tower was copied, so it is not compared.
    compared = [source["comparison"] for source in made["sources"]]
    assert [list(each["embeddings"]) for each in compared] == [["image"], ["text"]]
    assert {layer["name"] for layer in compared[0]["layers"]} == {f"image/layers/{i}" for i in range(3)}
    kernel = start.params["text"]["projection"]["kernel"]
    assert kernel.shape == (36, 13) and 0.1 < kernel.std() < 0.25
    assert (start.config.head_width, start.tokenizer.kind, start.context_length) == (None, "wordpiece", 24)
    assert start.preprocessing.resize == "squash"  # although CLIP itself crops
    dropped = {drop["key"] for drop in made["sources"][1]["tensors"]["dropped"]}
    assert "cls.predictions.bias" in dropped


def test_a_roberta_keeps_its_tokenization_until_it_is_composed_into_a_chinese_clip(parts, tmp_path):
    from cn_clip.clip import tokenize
    from cn_clip.clip.bert_tokenizer import default_vocab
    from cn_clip.training.data import _preprocess_text

    words = checkpoints.bert_config(21128)
    roberta = randomise(transformers.BertModel(transformers.BertConfig(**words)))
    checkpoints.save_hf(roberta, tmp_path / "roberta")
    own = transformers.BertTokenizer(default_vocab())
    own.save_pretrained(tmp_path / "roberta")
    strings = varied(500)
    convert(str(tmp_path / "roberta"), tmp_path / "alone", CheckpointOptions(), quiet)
    alone = open_bundle(tmp_path / "alone")
    assert alone.tokenizer.kind == "bert"
    ids = own(strings, padding="max_length", truncation=True, max_length=24)["input_ids"]
    np.testing.assert_array_equal(alone.tokenizer(strings, 24), ids)
    expected = tokenize([_preprocess_text(text) for text in strings], 24).numpy()
    for name in ("roberta", "alone"):  # a checkpoint, and its bundle
        made = compose(str(parts / "clip"), str(tmp_path / name), tmp_path / f"{name}-start", report=quiet)
        start = open_bundle(tmp_path / f"{name}-start")
        assert (start.tokenizer.kind, made["tokenizer"]["kind"]) == ("wordpiece", "wordpiece")
        np.testing.assert_array_equal(start.tokenizer(strings, 24), expected)
    assert made["sources"][1]["passport"]["tokenizer"]["kind"] == "bert"


def test_new_parameters_depend_on_the_seed(parts):
    names = str(parts / "clip"), str(parts / "bert")
    image, text = (open_part(name, role) for name, role in zip(names, ("image", "text"), strict=True))
    a, b, c = (
        composed(image, text, seed, names).bundle.params["text"]["projection"]["kernel"].read() for seed in (0, 0, 1)
    )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.fixture(scope="module")
def bundles(parts, tmp_path_factory):
    """Bundles of the CLIP and the XLM-R, and the start composed of them. Read only."""
    place = tmp_path_factory.mktemp("bundles")
    for name in ("clip", "xlm-r"):
        convert(str(parts / name), place / name, CheckpointOptions(), quiet)
    compose(str(place / "clip"), str(place / "xlm-r"), place / "start", seed=3, report=quiet)
    return place


@pytest.fixture(scope="module")
def start(parts, tmp_path_factory):
    """The start composed of the checkpoints. Read only."""
    place = tmp_path_factory.mktemp("start") / "start"
    compose(str(parts / "clip"), str(parts / "xlm-r"), place, seed=3, report=quiet)
    return place


def test_bundles_compose_like_checkpoints(bundles, start):
    one, two = (open_bundle(folder).tensors() for folder in (bundles / "start", start))
    assert all(one[path].read().tobytes() == two[path].read().tobytes() for path in two)
    image, text = passport.read(bundles / "start")["sources"]
    assert image["passport"]["sources"][0]["family"] == "clip"
    weights = ["config.json", "parameters.safetensors"]
    assert [file["name"] for file in image["files"]] == weights  # without its vocabulary
    assert {file["name"] for file in text["files"]} > {*weights, "tokenizer/jclip_tokenizer.json"}


def seen(checks, holds=False):
    return {check.what: check.seen for check in checks if check.holds is holds}


def test_a_start_from_bundles_verifies_against_them_alone(parts, bundles, tmp_path):
    start, sources = bundles / "start", [bundles / "clip", bundles / "xlm-r"]
    assert all(check.holds for check in verify(start, [*map(str, sources)], report=quiet))
    copy = shutil.copytree(bundles, tmp_path / "copy")
    change_json(copy / "clip" / "config.json", lambda record: record.update(provenance={}))
    (copy / "xlm-r" / "tokenizer" / "more.txt").write_text("")
    wrong = seen(verify(start, [str(copy / "clip"), str(copy / "xlm-r")], report=quiet))
    assert wrong == {
        "clip: files": "changed since the conversion: config.json",
        "xlm-r: files": "new since the conversion: tokenizer/more.txt",
    }
    # The checkpoint of a bundle has the same tensors, but is another source.
    wrong = seen(verify(start, [str(parts / "clip"), str(bundles / "xlm-r")], report=quiet))
    assert wrong.keys() == {"clip: files", "clip: keys"} and "missing: parameters.safetensors" in wrong["clip: files"]
    with pytest.raises(JclipError, match="xlm-r is a bundle with its own tokenizer: omit --tokenizer"):
        verify(start, [*map(str, sources)], tmp_path, report=quiet)


def test_a_composed_bundle_verifies(parts, tmp_path, capsys):
    sources = [str(parts / "clip"), str(parts / "xlm-r")]
    arguments = ["--image", sources[0], "--text", sources[1], str(tmp_path / "start"), "--seed", "-3"]
    assert main(["convert", *arguments]) == 0
    told = capsys.readouterr().err
    assert "new: text/head/kernel: normal, standard deviation 0.02, seed -3\n" in told
    checks = verify(tmp_path / "start", sources, report=quiet)
    assert all(check.holds for check in checks), checks
    assert {"clip: files", "clip: keys", "clip: embeddings", "clip: logits", "xlm-r: 2 layers"} <= seen(
        checks, True
    ).keys()
    with pytest.raises(JclipError, match="give 2 source"):
        verify(tmp_path / "start", sources[:1], report=quiet)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("image/layers/mlp/fc1/kernel", "clip"),
        ("text/projection/kernel", "clip"),
        ("text/layers/mlp/fc1/kernel", "xlm-r"),
        ("text/head/kernel", None),  # new, so that no PyTorch model has it
    ],
)
def test_verify_compares_the_written_parameters_with_pytorch(path, wrong, parts, start, tmp_path):
    file = shutil.copytree(start, tmp_path / "start") / "parameters.safetensors"
    tensors = {name: tensor.read() for name, tensor in open_safetensors(file).items()}
    tensors[path] = tensors[path][::-1].copy()
    write_safetensors(file, tensors)
    checks = verify(tmp_path / "start", [str(parts / "clip"), str(parts / "xlm-r")], report=quiet)
    assert seen(checks).keys() == {"parameters", *([f"{wrong}: the PyTorch model"] if wrong else [])}


def test_the_image_source_needs_no_vocabulary(parts, tmp_path):
    """The installed vocabulary of CLIP is larger than this model's."""
    mute = shutil.copytree(parts / "clip", tmp_path / "mute")
    for file in ("merges.txt", "vocab.json", "tokenizer.json"):
        (mute / file).unlink(missing_ok=True)
    with pytest.raises(JclipError, match="another model's vocabulary"):
        convert(str(mute), tmp_path / "alone", report=quiet)
    made = compose(str(mute), str(parts / "bert"), tmp_path / "start", report=quiet)
    assert [file["name"] for file in made["sources"][0]["files"]] == ["config.json", "model.safetensors"]
    assert "vocab.txt" in [file["name"] for file in made["sources"][1]["files"]]


def test_parts_that_do_not_fit_are_named(parts, tmp_path):
    clip, xlm_r = str(parts / "clip"), str(parts / "xlm-r")
    with pytest.raises(JclipError, match="has no image tower: name a CLIP"):
        compose(xlm_r, xlm_r, tmp_path / "x", report=quiet)
    with pytest.raises(JclipError, match="is not a text encoder alone"):
        compose(clip, clip, tmp_path / "x", report=quiet)
    with pytest.raises(JclipError, match="--seed 4294967296 has more than 32 bits: choose a smaller one"):
        compose(clip, xlm_r, tmp_path / "x", seed=2**32, report=quiet)
    assert list(tmp_path.iterdir()) == []
