"""Bundles round-trip, and errors name the damaged file."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jclip import rules
from jclip.bundle import Bundle, load_bundle, save_bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.models.bert import BertConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from tests.evaluate.small_bundle import random_variables


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Bundle that tests only read."""
    tokenizer = write_tokenizer("wordpiece", tmp_path_factory.mktemp("tokenizer") / "words")
    text = BertConfig(
        vocab_size=tokenizer.vocab_size,
        width=16,
        layers=2,
        heads=2,
        intermediate=32,
        max_positions=16,
        type_vocab_size=2,
        pad_id=0,
        layer_norm_eps=1e-12,
        position_offset="none",
    )
    config = DualEncoderConfig(ResNetConfig(32, layers=(1, 1, 1, 1), width=4, heads=2), text, embed_dim=8)
    variables = random_variables(config)
    return Bundle(config, variables["params"], tokenizer, Preprocessing(32), 16, variables["batch_stats"], {"run": "x"})


def test_round_trip_to_the_bit(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "deep" / "model")
    back = load_bundle(tmp_path / "deep" / "model")
    assert (back.config, back.preprocessing, back.context_length) == (bundle.config, Preprocessing(32), 16)
    assert back.provenance == {"run": "x"}
    for ours, theirs in ((back.params, bundle.params), (back.stats, bundle.stats)):
        ours, theirs = rules.paths_of(ours), rules.paths_of(theirs)
        assert ours.keys() == theirs.keys()
        for path in ours:
            assert ours[path].shape == np.shape(theirs[path]), path
            np.testing.assert_array_equal(ours[path], theirs[path])
    np.testing.assert_array_equal(back.tokenizer(["red apple"], 8), bundle.tokenizer(["red apple"], 8))


def test_an_older_bundle_without_an_orientation_loads(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    assert config["preprocessing"].pop("orientation") == "ignore"
    file.write_text(json.dumps(config))
    assert load_bundle(tmp_path / "model").preprocessing == Preprocessing(32, orientation="ignore")
    config["preprocessing"]["orientation"] = "turn"
    file.write_text(json.dumps(config))
    with pytest.raises(JclipError, match="preprocessing.orientation is 'turn', but must be one of 'ignore', 'apply'"):
        load_bundle(tmp_path / "model")


def test_saving_again_replaces_the_whole_bundle(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "model")
    (tmp_path / "model" / "left over").write_text("x")
    save_bundle(bundle, tmp_path / "model")
    assert not (tmp_path / "model" / "left over").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_that_is_not_a_bundle_is_refused(tmp_path):
    with pytest.raises(JclipError, match=r"is not a bundle: it has no config\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("model"), r"config\.json is damaged, it has no 'model'"),
        (lambda record: record.update(format=9), r"config\.json has format 9"),
        (lambda record: record.update(context_length="x"), r"context_length is 'x', but must be a whole number"),
        (lambda record: record["model"].update(embed_dim=9), r"parameters\.safetensors: \S+ is \(.*\), but config"),
        (lambda record: record["model"].update(embed_dimm=3), r"has no field 'embed_dimm': did you mean embed_dim\?"),
    ],
)
def test_a_damaged_config_is_named(bundle, tmp_path, change, message):
    save_bundle(bundle, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    with pytest.raises(JclipError, match=message):
        load_bundle(tmp_path / "model")


def test_damaged_parameters_are_named(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "model")
    file = tmp_path / "model" / "parameters.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(JclipError, match=r"parameters\.safetensors is truncated"):
        load_bundle(tmp_path / "model")


def test_missing_parameters_are_named(bundle, tmp_path):
    params = {name: leaf for name, leaf in bundle.params.items() if name != "logit_scale"}
    save_bundle(replace(bundle, params=params), tmp_path / "model")
    with pytest.raises(JclipError, match=r"logit_scale is absent, but config\.json says \(\)"):
        load_bundle(tmp_path / "model")
