"""A passport verifies the bundle of its conversion and no other."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from jclip.bundle import open_bundle
from jclip.cli import main
from jclip.conversion import convert, verify
from jclip.conversion.importing import CheckpointOptions, import_model
from jclip.conversion.parity import passport
from jclip.errors import JclipError
from jclip.images.preprocess import normalise, to_array
from jclip.io.safetensors import open_safetensors, write_safetensors
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken


def quiet(what):
    pass


class Place:
    """A checkpoint and its bundle. Read only."""

    def __init__(self, source, bundle):
        self.source, self.bundle = source, bundle


@pytest.fixture(scope="module")
def converted(checkpoint_of, bundle_of):
    return Place(checkpoint_of("chinese_clip_hf")[0], bundle_of("chinese_clip_hf"))


def holds(checks):
    return {check.what: check.holds for check in checks}


def test_a_converted_bundle_verifies(converted, capsys):
    arguments = ["verify", str(converted.bundle), str(converted.source), "--json"]
    assert main(arguments) == 0
    checks = json.loads(capsys.readouterr().out)
    assert all(check["holds"] for check in checks)
    seen = {check["what"]: check["seen"] for check in checks}
    assert "equal to the bit" in seen["parameters"] and "sha256" in seen["files"]
    assert any("5 layers" in what for what in seen)


def copied(converted, place, change):
    """Returns a copy of the converted bundle with changed tensors."""
    shutil.copytree(converted.bundle, place)
    tensors = {path: tensor.read() for path, tensor in open_safetensors(place / "parameters.safetensors").items()}
    change(tensors)
    write_safetensors(place / "parameters.safetensors", tensors)
    return place


def test_a_flipped_bit_is_noticed(converted, tmp_path):
    def flip(tensors):
        tensors["text/embedding_norm/bias"].view(np.uint8)[0] ^= 1

    checks = verify(copied(converted, tmp_path / "b", flip), [str(converted.source)], report=quiet)
    found = holds(checks)
    assert not found["parameters"] and found["files"]
    assert "text/embedding_norm/bias" in next(check.seen for check in checks if check.what == "parameters")


def test_a_wrong_tower_is_noticed_by_the_comparison(converted, tmp_path):
    def swap(tensors):
        layers = tensors["text/layers/attention/query/kernel"]
        layers[:] = layers[::-1].copy()

    checks = verify(copied(converted, tmp_path / "b", swap), [str(converted.source)], report=quiet)
    assert not holds(checks)["the PyTorch model"]
    assert "text/layers/0" in next(check.seen for check in checks if check.what == "the PyTorch model")


def test_another_tokenizer_is_noticed(converted, tmp_path):
    place = copied(converted, tmp_path / "b", lambda tensors: None)
    file = next((place / "tokenizer").glob("vocab.txt"))
    lines = file.read_text().split("\n")
    lines[6], lines[7] = lines[7], lines[6]
    lines[5:60] = lines[5:60][::-1]
    file.write_text("\n".join(lines))
    assert not holds(verify(place, [str(converted.source)], report=quiet))["tokens and images"]
    assert main(["verify", str(place), str(converted.source)]) == 1


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (lambda record: record["model"]["image"].update(heads=1), "towers"),
        (lambda record: record["model"]["text"].update(layer_norm_eps=1e-3), "towers"),
        (lambda record: record["preprocessing"].update(mean=[0.5, 0.5, 0.5]), "preprocessing"),
        (lambda record: record["preprocessing"].update(std=[0.26, 0.26, 0.276]), "preprocessing"),
        (lambda record: record.update(context_length=9), "context length"),
    ],
)
def test_changes_outside_the_tensors_are_noticed(converted, tmp_path, change, other):
    place = copied(converted, tmp_path / "b", lambda tensors: None)
    record = json.loads((place / "config.json").read_text())
    change(record)
    (place / "config.json").write_text(json.dumps(record))
    checks = verify(place, [str(converted.source)], report=quiet)
    assert next(check.seen for check in checks if check.what == "configuration") == f"different: {other}"
    found = holds(checks)
    assert not found["configuration"]
    fixtures = next(check.seen for check in checks if check.what == "tokens and images")
    assert ("normalised black and white" in fixtures) == (other == "preprocessing")
    assert found["tokens and images"] == (other not in ("preprocessing", "context length"))


def test_dropped_keys_are_compared_and_the_wording_of_their_reasons_is_not(checkpoint_of, bundle_of, tmp_path):
    source, _, _ = checkpoint_of("openai_vit")
    place = shutil.copytree(bundle_of("openai_vit"), tmp_path / "b")
    record = passport.read(place)
    dropped = record["sources"][0]["tensors"]["dropped"]
    for change, same in ((lambda: dropped[0].update(reason="another"), True), (lambda: dropped.pop(), False)):
        change()
        passport.write(record, place)
        assert holds(verify(place, [str(source)], report=quiet))["keys"] is same


# Files and options of the conversion.


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A sentence encoder with every file that the conversion reads, and some that it does not."""
    place = tmp_path_factory.mktemp("encoder")
    source = broken.write_checkpoint(place / "source", "bert", TextEncoderConfig(broken.BERT))
    (source / "1_Pooling").mkdir()
    for name, said in {
        "modules.json": [{"type": "sentence_transformers.models.Transformer"}],
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 20},
        "tokenizer_config.json": {"do_lower_case": True},
        "generation_config.json": {},
        "vocab.json": {},
    }.items():
        (source / name).write_text(json.dumps(said))
    shards = dict.fromkeys(open_safetensors(source / "model.safetensors"), "model-1.safetensors")
    (source / "model.safetensors").rename(source / "model-1.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    convert(str(source), place / "bundle", report=quiet)
    return place


def test_every_file_that_was_read_is_in_the_passport(encoder):
    (source,) = passport.read(encoder / "bundle")["sources"]
    assert [file["name"] for file in source["files"]] == [
        "1_Pooling/config.json",
        "config.json",
        "model-1.safetensors",
        "model.safetensors.index.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]


def files_check(bundle, source):
    return next(check for check in verify(bundle, [str(source)], report=quiet) if check.what == "files")


def test_a_file_that_changed_is_named(encoder, tmp_path):
    source = shutil.copytree(encoder / "source", tmp_path / "source")
    assert files_check(encoder / "bundle", source).holds
    for name in ("1_Pooling/config.json", "config.json", "sentence_bert_config.json", "generation_config.json"):
        (source / name).write_text((source / name).read_text() + "\n")
    (source / "modules.json").unlink()
    check = files_check(encoder / "bundle", source)
    assert not check.holds
    assert check.seen == (
        "changed since the conversion: 1_Pooling/config.json, config.json, sentence_bert_config.json; "
        "missing: modules.json"
    )


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json", "open_clip_config.json"])
def test_preprocessing_files_are_in_the_passport(name, converted, tmp_path):
    source = shutil.copytree(converted.source, tmp_path / "source")
    pixels = {"crop_size": 30, "size": 30}
    said = {
        "preprocessor_config.json": pixels,
        "processor_config.json": {"image_processor": pixels},
        "open_clip_config.json": {"model_cfg": {"vision_cfg": {"image_size": 30}}},
    }[name]
    (source / name).write_text(json.dumps(said))
    with_it, without = (import_model(str(place)).facts()["files"] for place in (source, converted.source))
    assert [file for file in with_it if file["name"] != name] == without
    assert len(with_it) == len(without) + 1


def test_the_options_of_the_conversion_are_in_the_passport(tmp_path, monkeypatch):
    place = broken.write_checkpoint(tmp_path / "source", "open-clip", broken.CLIP)
    source = (place / "model.safetensors").rename(place / "epoch_3.safetensors")
    monkeypatch.chdir(place)
    said = CheckpointOptions(family="open-clip", tokenizer="merges.txt", activation="gelu", image_size=50)
    made = convert(str(source), tmp_path / "bundle", said, quiet)
    assert made["sources"][0]["options"] == {
        "family": "open-clip",
        "tokenizer": str(place / "merges.txt"),
        "activation": "gelu",
        "image_size": 50,
    }
    monkeypatch.chdir(tmp_path)
    checks = verify(tmp_path / "bundle", [str(source)], report=quiet)
    assert all(check.holds for check in checks), checks
    moved = (place / "merges.txt").rename(tmp_path / "merges.txt")
    with pytest.raises(
        JclipError, match=r"there is no tokenizer at .*source/merges.txt: give its path with --tokenizer"
    ):
        verify(tmp_path / "bundle", [str(source)], report=quiet)
    assert main(["verify", str(tmp_path / "bundle"), str(source), "--tokenizer", str(moved), "--json"]) == 0


def test_image_fixtures_are_the_normalised_images(converted):
    bundle = open_bundle(converted.bundle)
    black, white = np.array(passport.read(converted.bundle)["preprocessing"]["normalised"])
    drawn = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    pixels = to_array(bundle.preprocessing, drawn)
    expected = black + pixels / 255 * (white - black)
    np.testing.assert_allclose(normalise(bundle.preprocessing, pixels[None])[0], expected, atol=1e-6)


def test_a_checkpoint_of_another_size_fails_without_a_crash(converted, tmp_path):
    other = replace(broken.CHINESE_CLIP, text=replace(broken.BERT, layers=1))
    source = broken.write_checkpoint(tmp_path / "source", "chinese-clip", other)
    checks = verify(converted.bundle, [str(source)], report=quiet)
    found = holds(checks)
    assert not found["parameters"] and not found["configuration"] and found["the PyTorch model"] is None
