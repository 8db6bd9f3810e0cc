"""Every family and layout, converted and used as a user does, against the PyTorch model it came from."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from jclip.bundle import open_bundle
from jclip.conversion.converting import compared
from jclip.conversion.importing import CheckpointOptions, import_model
from jclip.conversion.parity import passport
from jclip.conversion.parity.comparison import EMBEDDINGS_WITHIN, LOGITS_WITHIN
from jclip.errors import JclipError
from jclip.images.preprocess import normalise, to_array
from tests.conversion import checkpoints
from tests.conversion.layouts import TEXTS
from tests.models.parity import unit

MODELS = [
    "altclip_v4",
    "chinese_clip_hf",
    "cn_clip_released",
    "cn_clip_resnet",
    "clip_hf",
    "clip_hf_gelu",
    "openai_vit",
    "openai_resnet",
    "open_clip_hub",
    pytest.param("open_clip_training", marks=pytest.mark.slow),
]
# (layout, layout of the same model, whether to compare with PyTorch too). Flash attention and FlagAI's config.json also
# change how the PyTorch model is built.
SAME = [
    ("altclip_v5_in_memory", "altclip_v4", False),
    ("altclip_sharded", "altclip_v4", False),
    ("altclip_old_bin", "altclip_v4", False),
    ("altclip_flagai", "altclip_v4", True),
    ("cn_clip_plain", "cn_clip_released", False),
    ("cn_clip_training", "cn_clip_released", False),
    ("cn_clip_flash", "cn_clip_released", True),
]


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_equals_the_pytorch_model(name, checkpoint_of, bundle_of, model_of):
    encode, model = checkpoint_of(name)[2], model_of(name)
    bundle = model.bundle
    pictures = checkpoints.images(bundle.preprocessing.size)
    pixels = normalise(bundle.preprocessing, np.stack([to_array(bundle.preprocessing, p) for p in pictures]))
    # Padded further than our model pads, to show that padding does not matter.
    ids = bundle.tokenizer(TEXTS, bundle.context_length)
    image, text = map(unit, encode(np.asarray(pixels), ids))
    ours_image, ours_text = model.encode_image(pictures), model.encode_text(TEXTS)
    assert np.abs(ours_image - image).max() < EMBEDDINGS_WITHIN
    assert np.abs(ours_text - text).max() < EMBEDDINGS_WITHIN
    logits = encode.logit_scale * image @ text.T
    assert np.abs(model.similarity(pictures, TEXTS) - logits).max() < LOGITS_WITHIN * np.abs(logits).max()
    assert (
        np.abs(image - image[0]).max() > 1e-3 and np.abs(text - text[0]).max() > 0.01
    )  # equal rows would prove nothing

    (facts,) = passport.read(bundle_of(name))["sources"]
    assert facts["comparison"]["compared"]
    assert all(layer["relative"] < 1e-4 for layer in facts["comparison"]["layers"])
    tensors = facts["tensors"]
    assert tensors["read"] == tensors["mapped"] + len(tensors["dropped"])


@pytest.mark.parametrize(("name", "same", "compare"), SAME)
def test_another_layout_gives_the_same_bundle_to_the_bit(name, same, compare, checkpoint_of, bundle_of):
    source, options, _ = checkpoint_of(name)
    model, expected = import_model(str(source), options), open_bundle(bundle_of(same))
    ours, theirs = model.tensors(), expected.tensors()
    assert ours.keys() == theirs.keys()
    for path, tensor in ours.items():
        assert tensor.read().tobytes() == theirs[path].read().tobytes(), path
    bundle = model.bundle()
    assert (bundle.config, bundle.preprocessing) == (expected.config, expected.preprocessing)
    assert bundle.context_length == expected.context_length
    np.testing.assert_array_equal(bundle.tokenizer(TEXTS, 20), expected.tokenizer(TEXTS, 20))
    tensors = model.facts()["tensors"]
    assert tensors["read"] == tensors["mapped"] + len(tensors["dropped"])
    if compare:
        assert compared(model, ours)["compared"]


@pytest.mark.parametrize("name", ["openai_vit", "openai_resnet"])
def test_openai_archives_are_recognised(name, checkpoint_of):
    source, options, _ = checkpoint_of(name)
    model = import_model(str(source), options)
    assert model.source.family.name == "openai-clip"
    dropped = {key for key in model.mapped.dropped if not key.endswith("num_batches_tracked")}
    assert dropped == {"input_resolution", "context_length", "vocab_size", "attn_mask"}
    assert set(model.facts()["dtypes"]) == {"float16", "float32"}


def test_layers_are_compared_one_by_one(bundle_of):
    (facts,) = passport.read(bundle_of("cn_clip_resnet"))["sources"]
    names = [layer["name"] for layer in facts["comparison"]["layers"]]
    stages = ["1_block_1", "1_block_2", "2_block_1", "3_block_1", "4_block_1"]
    assert names == [*(f"image/stage_{stage}" for stage in stages), "text/layers/0", "text/layers/1"]


def test_an_activation_that_the_configuration_omits_is_the_given_or_the_assumed_one(checkpoint_of, tmp_path):
    source = shutil.copytree(checkpoint_of("clip_hf_gelu")[0], tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        del config[part]["hidden_act"]
    (source / "config.json").write_text(json.dumps(config))
    for options, assumed in (
        (CheckpointOptions(activation="gelu"), ()),
        (CheckpointOptions(), tuple(f"activation of {part}_config: quick_gelu" for part in ("vision", "text"))),
    ):
        model = import_model(str(source), options)
        assert model.assumed == assumed
        assert compared(model, model.tensors())["compared"]  # with the same activation in PyTorch


def test_assumptions_in_place_of_a_configuration_are_listed(checkpoint_of, tmp_path):
    source = shutil.copytree(checkpoint_of("clip_hf_gelu")[0], tmp_path / "source")
    (source / "config.json").unlink()
    model = import_model(str(source))
    assert any(line.startswith("without a config.json: heads of 64 channels") for line in model.assumed)
    assert compared(model, model.tensors())["supposing"] == list(model.assumed) == model.facts()["assumed"]


@pytest.mark.parametrize("name", ["openai_vit", "open_clip_hub", "cn_clip_plain"])
def test_an_activation_that_contradicts_the_checkpoint_is_refused(name, checkpoint_of):
    source, options, _ = checkpoint_of(name)
    other = "quick_gelu" if name == "open_clip_hub" else "gelu"
    with pytest.raises(JclipError, match=f"not {other}: omit --activation"):
        import_model(str(source), replace(options, activation=other))


def test_of_two_configurations_the_one_that_fits_the_weights_is_read(checkpoint_of, tmp_path):
    """LAION's repositories on the hub have open_clip's file beside transformers' configuration."""
    source = shutil.copytree(checkpoint_of("open_clip_hub")[0], tmp_path / "source")
    (source / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_size": 7}}))
    model = import_model(str(source))
    assert model.source.family.name == "open-clip" and model.source.config_name.endswith("open_clip_config.json")
