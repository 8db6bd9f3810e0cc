"""Features of a bundle: unit length, independence of the batching, and errors that name the input."""

import copy
import dataclasses
import io
import pickle
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jclip
from jclip import rules
from jclip.bundle import Bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.encoding import image_encoder
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.tokenizers.text import train_clip_bpe
from tests.evaluate.small_bundle import write_small_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    """Model that tests only read; they share its compiled functions."""
    return jclip.load(folder)


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(5)]


def test_features_are_unit_float32(model, pictures):
    for features in (model.encode_image(pictures), model.encode_text(["red apple", "blue castle 3", ""])):
        assert features.dtype == np.float32
        assert features.shape[1] == 8
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    assert model.similarity_scale == pytest.approx(1 / 0.07)
    assert model.similarity(pictures, ["red apple"]).shape == (5, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7])
def test_batches_do_not_matter(model, pictures, batch_size):
    bundle = model.bundle
    whole, parts = Model(bundle, batch_size=64), Model(bundle, batch_size=batch_size)
    np.testing.assert_allclose(parts.encode_image(pictures), whole.encode_image(pictures), atol=1e-6)
    texts = [f"red apple {i}" for i in range(5)]
    np.testing.assert_allclose(parts.encode_text(texts), whole.encode_text(texts), atol=1e-6)


def test_images_are_decoded_batch_by_batch(model, pictures, monkeypatch):
    decoded, computed = [], []
    model = Model(model.bundle, batch_size=2)
    encode = image_encoder(model.bundle.config, model.bundle.preprocessing)
    monkeypatch.setattr("jclip.encoding.to_array", lambda _, picture, name: decoded.append(1) or picture)
    counted = lambda *inputs: computed.append(len(decoded)) or encode(*inputs)  # noqa: E731
    monkeypatch.setattr("jclip.encoding.image_encoder", lambda *_: counted)
    model.encode_image(pictures)
    assert computed == [2, 4, 5]


def test_equal_towers_share_their_compiled_functions(model, pictures):
    encode = image_encoder(model.bundle.config, model.bundle.preprocessing)
    model.encode_image(pictures)
    compiled = encode._cache_size()
    again = Model(replace(model.bundle, params=jax.tree.map(lambda leaf: 2 * leaf, model.bundle.params)))
    again.encode_image(pictures)
    assert encode._cache_size() == compiled


def test_a_picture_may_be_a_path_bytes_an_image_or_an_array(model, pictures, tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(pictures[0]).save(path)
    forms = [pictures[0], path, str(path), path.read_bytes(), Image.open(path)]
    features = model.encode_image(forms)
    np.testing.assert_array_equal(features, features[:1].repeat(5, axis=0))


def test_an_unreadable_picture_is_named(model, tmp_path):
    Path(tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(JclipError, match=r"broken\.png cannot be read"):
        model.encode_image([tmp_path / "broken.png"])


def test_a_single_item_instead_of_a_list_is_refused(model, pictures):
    with pytest.raises(JclipError, match="put a single text into brackets"):
        model.encode_text("red apple")
    for one in ("x.png", b"x", Path("x.png"), Image.fromarray(pictures[0])):
        with pytest.raises(JclipError, match="put a single image into brackets"):
            model.encode_image(one)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (None, "pictures[2] is None, but must be a PIL image, a path, encoded bytes, or a uint8 array"),
        (7, "pictures[2] is of type int, but must be a PIL image"),
        (b"", "pictures[2] cannot be read as an image (it is empty)"),
        (["a.png"], "pictures[2] is of type list, but must be a PIL image"),
        (np.zeros((4, 4, 3), np.float32), "pictures[2] is float32 (4, 4, 3), but must be uint8 (height, width, 3)"),
        (np.zeros((0, 4, 3), np.uint8), "pictures[2] has no pixels, but shape (0, 4, 3): leave it out"),
        (Image.new("RGB", (0, 4)), "pictures[2] cannot be read as an image (it has no pixels: 0 x 4)"),
        (
            Image.new("F", (2, 2), np.nan),
            "pictures[2] cannot be read as an image (it holds values that are not finite)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_item_that_is_not_an_image_is_named_by_its_index(model, pictures, odd, said):
    with pytest.raises(JclipError) as caught:
        model.encode_image([*pictures[:2], odd])
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (None, "text 1 is None, but must be a string"),
        (7, "text 1 is of type int, but must be a string"),
        (b"apple", "text 1 is of type bytes, but must be a string"),
        (("red", "apple"), "text 1 is of type tuple, but must be a string"),
        ("half \ud83d", "text 1 has a lone surrogate, 'half \\ud83d': decode it again"),
    ],
)
def test_an_item_that_is_not_a_text_is_named_by_its_index(model, odd, said):
    with pytest.raises(JclipError) as caught:
        model.encode_text(["red apple", odd])
    assert str(caught.value) == said


@pytest.mark.parametrize("odd", [None, 7, {"a.png": 1}, object()])
def test_inputs_that_are_not_lists_are_refused(model, odd):
    for encode, what in ((model.encode_image, "images"), (model.encode_text, "texts")):
        with pytest.raises(
            JclipError, match=f"takes a list of {what}, not {type(odd).__name__}: put them into brackets"
        ):
            encode(odd)
    with pytest.raises(JclipError, match="put a single image into brackets"):
        model.encode_image(np.zeros((4, 4, 3), np.uint8))


def test_arguments_of_the_wrong_kind_are_refused(model, pictures):
    with pytest.raises(JclipError, match="orientation is 'turn', but must be 'apply', 'ignore' or None"):
        model.encode_image(pictures, orientation="turn")
    with pytest.raises(JclipError, match="batch_size is 0, but must be 1 or more"):
        Model(model.bundle, 0)
    with pytest.raises(JclipError, match="an empty path cannot be read as an image"):
        model.encode_image([""])
    for odd in ("red", b"red", None, 7):
        with pytest.raises(JclipError, match=f"takes a list of texts, not {type(odd).__name__}: put them into"):
            model.bundle.tokenizer(odd, 9)


def test_any_iterable_of_items_is_accepted(model, pictures):
    expected = model.encode_image(pictures)
    for form in (tuple(pictures), iter(pictures), np.stack(pictures)):
        np.testing.assert_array_equal(model.encode_image(form), expected)
    assert model.encode_image(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, 8)
    words = ["red apple", "blue castle"]
    np.testing.assert_array_equal(model.encode_text(np.array(words)), model.encode_text(iter(words)))


def test_the_orientation_is_the_bundles_unless_it_is_given(model, pictures):
    image = Image.fromarray(pictures[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    as_stored, turned = model.encode_image([image, upright])
    data = [stream.getvalue()]
    np.testing.assert_allclose(model.encode_image(data)[0], as_stored, atol=1e-6)
    np.testing.assert_allclose(model.encode_image(data, orientation="apply")[0], turned, atol=1e-6)
    assert abs(as_stored - turned).max() > 1e-3
    bundle = dataclasses.replace(model.bundle, preprocessing=Preprocessing(16, orientation="apply"))
    np.testing.assert_allclose(Model(bundle).encode_image(data)[0], turned, atol=1e-6)
    np.testing.assert_allclose(Model(bundle).encode_image(data, orientation="ignore")[0], as_stored, atol=1e-6)


def test_a_model_that_has_encoded_can_be_pickled(model, pictures):
    features = model.encode_image(pictures), model.encode_text(["red apple"])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.encode_image(pictures), features[0])
    np.testing.assert_array_equal(copy.deepcopy(again).encode_text(["red apple"]), features[1])
    np.testing.assert_array_equal(
        model.encode_text(["red apple"]), features[1]
    )  # the original still has its compiled functions
    assert again.similarity_scale == model.similarity_scale


@pytest.mark.parametrize("kind", ["wordpiece", "xlmr", "clip_bpe", "bert"])
def test_every_tokenizer_can_be_pickled_with_its_model(kind, tmp_path):
    tokenizer = write_tokenizer(kind, tmp_path / "words")
    texts = ["red apple", "", "蓝色 城堡"]
    expected = tokenizer.encode(texts, 12)
    assert pickle.loads(pickle.dumps(tokenizer)).encode(texts, 12) == expected


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            "image/patch/kernel",
            np.nan,
            r"5 of 5 image .* at image 0: the model's image/patch/kernel holds NaN",
        ),
        ("image/projection/kernel", 3e38, r"\d of 5 image .*: the parameters are finite, but too large; use"),
        (
            "text/token_embedding",
            np.inf,
            r"1 of 2 text .* at text 1: the model's text/token_embedding holds NaN",
        ),
    ],
)
def test_features_that_are_not_finite_are_an_error_with_its_cause(model, pictures, path, value, says):
    bundle = model.bundle
    leaves = {name: np.array(leaf) for name, leaf in rules.paths_of(bundle.params).items()}
    if path == "text/token_embedding":
        leaves[path][bundle.tokenizer.encode(["castle"], 12)[0][1]] = value
    else:
        leaves[path] = np.sign(leaves[path]) * np.float32(value)
    model = Model(replace(bundle, params=rules.tree_from_paths(leaves)))
    encode, given = (
        (model.encode_image, pictures) if path.startswith("image") else (model.encode_text, ["red apple", "castle"])
    )
    with pytest.raises(JclipError, match=says):
        encode(given)


def test_a_model_made_in_python_is_checked_like_a_bundle(model):
    bundle = model.bundle
    smaller = replace(bundle.config, text=replace(bundle.config.text, vocab_size=100))
    with pytest.raises(JclipError, match="tokenizer: it has [0-9]+ tokens, but the model has embeddings for 100"):
        Model(replace(bundle, config=smaller))


@pytest.mark.parametrize("value", [400, np.nan, np.inf])
def test_a_logit_scale_without_a_finite_exponential_is_refused(model, value):
    bundle = model.bundle
    with pytest.raises(JclipError, match=rf"^logit_scale is {value:g}; its exponential is not finite: use"):
        Model(replace(bundle, params=bundle.params | {"logit_scale": np.float32(value)}))


def test_save_and_load(model, tmp_path):
    jclip.save(model, tmp_path / "model")
    jclip.save(model.bundle, str(tmp_path / "bundle"))
    texts = ["red apple", "blue castle"]
    for name in ("model", "bundle"):
        np.testing.assert_array_equal(jclip.load(tmp_path / name).encode_text(texts), model.encode_text(texts))
    smaller = replace(model.bundle.config, text=replace(model.bundle.config.text, vocab_size=100))
    with pytest.raises(JclipError, match="tokenizer: it has"):
        jclip.save(replace(model.bundle, config=smaller), tmp_path / "model")


def test_the_identity_is_that_of_the_contents(model, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    jclip.save(model, tmp_path / "elsewhere")
    in_memory = Model(replace(model.bundle, provenance={"run": "another"}))
    again = pickle.loads(pickle.dumps(in_memory))
    known = {each.identity for each in (jclip.load(folder), jclip.load(tmp_path / "elsewhere"), in_memory, again)}
    assert known == {model.identity} and re.fullmatch("[0-9a-f]{64}", model.identity)


def changed_config(bundle):
    return replace(bundle, config=replace(bundle.config, image=replace(bundle.config.image, heads=4)))


def one_ulp(bundle):
    params = copy.deepcopy(bundle.params)
    kernel = params["text"]["projection"]["kernel"]
    kernel[0, 0] = np.nextafter(kernel[0, 0], np.float32(np.inf))
    return replace(bundle, params=params)


def other_tokenizer(bundle):
    return replace(bundle, tokenizer=train_clip_bpe(["other words"], bundle.tokenizer.vocab_size))


@pytest.mark.parametrize(
    "change",
    [
        changed_config,
        one_ulp,
        other_tokenizer,
        lambda bundle: replace(bundle, preprocessing=replace(bundle.preprocessing, orientation="apply")),
        lambda bundle: replace(bundle, context_length=bundle.context_length - 1),
    ],
)
def test_other_contents_have_another_identity(model, change):
    assert Model(change(model.bundle)).identity != model.identity


def test_the_identity_does_not_depend_on_the_dtype_of_the_file(model, tmp_path):
    halves = replace(model.bundle, params=jax.tree.map(lambda leaf: leaf.astype(np.float16), model.bundle.params))
    jclip.save(halves, tmp_path / "halves")
    loaded = jclip.load(tmp_path / "halves")
    jclip.save(loaded, tmp_path / "floats")
    sizes = {name: (tmp_path / name / "parameters.safetensors").stat().st_size for name in ("halves", "floats")}
    assert sizes["halves"] < sizes["floats"]
    assert Model(halves).identity == loaded.identity == jclip.load(tmp_path / "floats").identity != model.identity


def test_the_identity_of_an_unchanged_folder_is_computed_once(model, tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    jclip.save(model, tmp_path / "bundle")
    digests = []
    monkeypatch.setattr(Bundle, "digest", lambda bundle, own=Bundle.digest: digests.append(own(bundle)) or digests[-1])
    first, second = jclip.load(tmp_path / "bundle"), jclip.load(tmp_path / "bundle")
    assert first.identity == first.identity == second.identity == digests.pop() and not digests
    jclip.save(one_ulp(model.bundle), tmp_path / "bundle")
    assert jclip.load(tmp_path / "bundle").identity == digests.pop() != first.identity
    assert second.identity == first.identity  # the model in memory is still the old one


def test_the_identity_needs_no_cache(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "file" / "cache"))
    jclip.save(model, tmp_path / "bundle")
    assert jclip.load(tmp_path / "bundle").identity == model.identity


@pytest.mark.parametrize(
    ("provenance", "name"),
    [
        ({"run": "altclip", "stage": "contrastive", "steps": 3}, "altclip/contrastive"),
        ({"run": "own"}, "own"),
        ({"converted_from": "hf://OFA-Sys/chinese-clip-vit-base-patch16"}, "OFA-Sys/chinese-clip-vit-base-patch16"),
        ({"converted_from": "downloads/clip_cn_vit-b-16.pt"}, "clip_cn_vit-b-16.pt"),
        ({"run": "a\x1b[2Jb"}, r"a\x1b[2Jb"),
        ({}, "Vit + ClipText"),
    ],
)
def test_the_name_is_from_the_provenance(model, provenance, name):
    named = Model(replace(model.bundle, provenance=provenance))
    assert (named.name, named.embed_dim) == (name, 8)


def test_changed_settings_share_the_parameters(tmp_path):
    model = jclip.load(write_small_bundle(tmp_path))
    shorter = model.changed(context_length=4, orientation="apply")
    assert shorter.variables is model.variables
    assert (shorter.bundle.context_length, model.bundle.context_length) == (4, 12)
    assert (shorter.bundle.preprocessing.orientation, model.bundle.preprocessing.orientation) == ("apply", "ignore")
    whole, cut = model.encode_text(["red apple 1 and more"]), shorter.encode_text(["red apple 1 and more"])
    assert np.abs(whole - cut).max() > 1e-4
    assert shorter.identity != model.identity == model.changed().identity
    with pytest.raises(JclipError, match="context_length is 99"):
        model.changed(context_length=99)
