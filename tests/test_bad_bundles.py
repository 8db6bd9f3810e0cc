"""A bundle's config.json with impossible numbers: a one-line error with file and field, before any allocation."""

import json
import shutil
import time
from dataclasses import dataclass, replace
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jclip.bundle import Bundle, load_bundle, save_bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.models import zoo
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig
from jclip.ranges import Range, check_ranges
from tests.evaluate.small_bundle import random_variables

VIT = VitConfig(16, 8, 16, 1, 2)


def saved(place, image):
    tokenizer = write_tokenizer("wordpiece", place / "words")
    text = BertConfig(tokenizer.vocab_size, 16, 1, 2, 32, 18, 2, pad_id=0, layer_norm_eps=1e-12)
    config = DualEncoderConfig(image, text, embed_dim=8)
    variables = random_variables(config)
    side, stats = image.image_size, variables.get("batch_stats", {})
    save_bundle(Bundle(config, variables["params"], tokenizer, Preprocessing(side), 12, stats), place / "bundle")
    return place / "bundle"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("vit"), VIT)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("resnet"), ResNetConfig(32, (1, 1, 1, 1), 4, 2))


def refused(bundle, place, path, value):
    """Returns the error of loading a copy of a bundle with one value of its config.json replaced."""
    folder = shutil.copytree(bundle, place / "bundle")
    file = folder / "config.json"
    record = json.loads(file.read_text())
    *parents, name = path.split(".")
    part = record
    for parent in parents:
        part = part[parent]
    assert name in part
    part[name] = value
    file.write_text(json.dumps(record))
    begun = time.monotonic()
    with pytest.raises(JclipError) as met:
        load_bundle(folder)
    message = str(met.value)
    assert time.monotonic() - begun < 20 and len(message) < 600 and "\n" not in message
    return message.removeprefix(f"{folder}/")


def refusal(folder):
    """Returns the error of loading a bundle, or "" if it loads."""
    try:
        load_bundle(folder)
    except JclipError as error:
        return str(error)
    return ""


NUMBERS = {
    "model.image.heads": [0, -1, 3, 10**30, 2.0, True, "2", None, [2]],
    "model.image.layers": [0, 10**9, 10**30, float("nan")],
    "model.image.image_size": [0, -16, 17, 10**9],
    "model.image.patch_size": [0, -8, 5, 10**9],
    "model.image.width": [0, -16, 10**9, float("inf")],
    "model.image.mlp_ratio": [0, 10**9, 4.5],
    "model.text.vocab_size": [0, 10**30, 1e30, True],
    "model.text.width": [0, 17],
    "model.text.intermediate": [0, 10**12],
    "model.text.max_positions": [0, 10**30],
    "model.text.type_vocab_size": [0],
    "model.text.pad_id": [-1, 10**9],
    "model.text.layer_norm_eps": [0, -1, 2, float("nan"), float("inf"), 10**400, "x", False],
    "model.text.dropout": [1, -0.1, float("nan")],
    "model.embed_dim": [0, 10**9, None],
    "model.logit_scale_init": [float("nan"), float("inf"), 1e9, 10**400],
    "preprocessing.size": [0, -4, 10**6, 15.5, True, None],
    "preprocessing.mean": [[0, 0], [0, 0, float("nan")], [0, 0, "x"], 0.5, [0, 0, float("inf")], [True, 0, 0]],
    "preprocessing.std": [[0, 1, 1], [1, 1, -1], [1, 1, float("nan")], [1, 1, 10**400], []],
    "preprocessing.resize": ["stretch", 3, None],
    "preprocessing.background": [[0, 0, 256], [0, 0], "white"],
    "context_length": [0, 2, -1, 10**9, 10**30, 3.5, True, "12", None],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in NUMBERS.items() for value in values])
def test_impossible_numbers_are_refused_by_field(path, value, vit, tmp_path):
    message = refused(vit, tmp_path, path, value)
    assert message.startswith(f"config.json: {path.split('.')[0]}") and path.split(".")[-1] in message, message


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.image.heads", 0, "config.json: model.image: heads is 0, but must be a whole number from 1 to 65536"),
        ("model.image.heads", 3, "config.json: model.image: 3 heads do not divide a width of 16"),
        (
            "model.text.layer_norm_eps",
            0.0,
            "model.text: layer_norm_eps is 0.0, but must be a number above 0, 1 at most",
        ),
        (
            "preprocessing.size",
            32,
            "preprocessing.size is 32, but the image tower reads images of 16 pixels: they must be",
        ),
        ("preprocessing", None, "config.json: preprocessing does not fit: the model has an image tower"),
        ("context_length", 19, "context_length is 19, but the text tower has positions for 18 tokens: give 3 to 18"),
        (
            "model.text.pad_id",
            1,
            "tokenizer: it pads with id 0, but the text tower's pad_id is 1: use the model's own tokenizer",
        ),
        ("model.text.vocab_size", 100, "parameters.safetensors: text/word_embedding is"),
        ("model.image.width", 32, "parameters.safetensors: image/"),
        ("model.image.layers", 1024, "parameters.safetensors: image/layers/"),
        ("provenance", [1], "config.json: provenance is [1], but must be an object"),
        ("format", [1], "config.json has format [1], this jclip reads 1"),
        ("model", "x", "config.json: model is 'x', but must be DualEncoderConfig or TextEncoderConfig"),
        ("model.image", ["x"] * 1000, "config.json: model.image is ['x', 'x'"),
        (
            "model.text.type",
            "GptConfig",
            "config.json: model.text cannot be a GptConfig: choose one of BertConfig, Clip",
        ),
    ],
)
def test_messages_name_the_field_and_the_range(path, value, says, vit, tmp_path):
    assert says in refused(vit, tmp_path, path, value)


@pytest.mark.parametrize("value", [[10**9, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1], [1, 1, 1, True], 3])
def test_impossible_blocks_of_a_resnet_are_refused(value, resnet, tmp_path):
    message = refused(resnet, tmp_path, "model.image.layers", value)
    assert message.startswith("config.json: model.image") and "layers" in message


def test_a_tokenizer_larger_than_the_embedding_is_refused(vit, tmp_path):
    """The embedding of an id beyond the vocabulary is NaN, which would look like a model that diverged."""
    folder = shutil.copytree(vit, tmp_path / "bundle")
    vocabulary = folder / "tokenizer" / "vocab.txt"
    rows = len(vocabulary.read_text().splitlines())
    vocabulary.write_text(vocabulary.read_text() + "more\n")
    says = f"bundle/tokenizer: it has {rows + 1} tokens, but the model has embeddings for {rows}: use the model's own"
    with pytest.raises(JclipError, match=says):
        load_bundle(folder)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["model", "model.image", "model.text", "preprocessing", "context_length", "format", "provenance"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_any_json_value_gives_an_error_or_a_bundle(vit, tmp_path_factory, path, value):
    folder = shutil.copytree(vit, tmp_path_factory.mktemp("any") / "bundle")
    file = folder / "config.json"
    record = json.loads(file.read_text())
    *parents, name = path.split(".")
    part = record
    for parent in parents:
        part = part[parent]
    part[name] = value
    file.write_text(json.dumps(record))
    assert "\n" not in refusal(folder)


# The same in Python.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: replace(VIT, heads=0), "heads is 0, but must be a whole number from 1"),
        (lambda: replace(VIT, heads=True), "heads is True"),
        (lambda: replace(VIT, patch_size=-8), "patch_size is -8"),
        (
            lambda: ClipTextConfig(10**30, 12, 16, 1, 2),
            "vocab_size is 10{30}, but must be a whole number from 1 to 2147",
        ),
        (
            lambda: ResNetConfig(32, (1, 1, 1, 10**9)),
            r"layers\.3 is 10{9}, but must be a whole number from 1",
        ),
        (lambda: replace(zoo.get_config("chinese-clip-vit-b-16"), embed_dim=0), "embed_dim is 0"),
        (
            lambda: replace(zoo.get_config("chinese-clip-vit-b-16"), logit_scale_init=float("nan")),
            "logit_scale_init is nan",
        ),
        (lambda: Preprocessing(size=-4), "size is -4, but must be a whole number from 1 to 65536"),
        (lambda: Preprocessing(std=(1.0, 1.0, 0.0)), r"std\.2 is 0\.0, but must be a number from 1e-06"),
        (lambda: Preprocessing(mean=(0.5,)), r"mean is \(0.5,\), but must be three numbers"),
    ],
)
def test_ranges_hold_in_python(make, says):
    with pytest.raises(JclipError, match=f"^{says}"):
        make()


def test_a_bundle_that_does_not_fit_together_is_not_written(vit, tmp_path):
    bundle = load_bundle(vit)
    for wrong in (replace(bundle, context_length=19), replace(bundle, preprocessing=Preprocessing(32))):
        with pytest.raises(JclipError, match=r"context_length is 19|preprocessing\.size is 32"):
            save_bundle(wrong, tmp_path / "bundle")
        assert not list(tmp_path.iterdir())


def test_every_published_model_is_within_the_ranges():
    for name in zoo.MODELS:
        check_ranges(zoo.get_config(name))
    for config in zoo.TEXT_ENCODERS.values():
        check_ranges(TextEncoderConfig(config).text)


@dataclass
class Some:
    pair: Annotated[tuple[float, ...], Range(0, 1, above=True)] = (1.0,)
    maybe: Annotated[int, Range(1, 5)] | None = None
    free: int = -100


def test_ranges_of_tuples_and_of_what_may_be_none():
    check_ranges(Some())
    check_ranges(Some((0.5, 1), 5))
    for wrong in (Some((0.5, 0.0)), Some(maybe=6), Some(maybe=1.0), Some((float("nan"),))):
        with pytest.raises(
            JclipError, match=r"^(pair\.\d|maybe) is .*, but must be a (whole )?number (above 0, 1|from)"
        ):
            check_ranges(wrong)
