"""Import, export and import again is exact, and other libraries load what we write."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import jclip
from jclip.bundle import Bundle, open_bundle, save_bundle
from jclip.conversion import CheckpointOptions, export
from jclip.conversion.importing import import_model
from jclip.conversion.mapping import export_tensors
from jclip.errors import JclipError
from jclip.images.preprocess import normalise, to_array
from jclip.io.safetensors import open_safetensors
from jclip.io.tensors import Lazy
from tests.conversion import checkpoints
from tests.conversion.checkpoints import encode_hf, encode_openai
from tests.conversion.layouts import TEXTS
from tests.models.parity import unit

CLASSES = {
    "altclip_v4": transformers.AltCLIPModel,
    "chinese_clip_hf": transformers.ChineseCLIPModel,
    "clip_hf_gelu": transformers.CLIPModel,
}
ROUND_TRIPS = [
    ("altclip_old_bin", "hf"),
    ("chinese_clip_hf", "hf"),
    ("clip_hf", "hf"),
    ("openai_vit", "hf"),  # float16 and float32 together
    ("cn_clip_flash", "hf"),
    ("cn_clip_released", "cn-clip"),
    ("cn_clip_resnet", "cn-clip"),
    ("cn_clip_shaped", "cn-clip"),
]


@pytest.fixture(scope="session")
def imported(checkpoint_of, tmp_path_factory):
    """Returns the bundle of a layout by name, imported once without the comparison. Read only."""

    def write(name):
        source, options, _ = checkpoint_of(name)
        bundle = tmp_path_factory.mktemp(f"{name}-imported") / "bundle"
        save_bundle(import_model(str(source), options).bundle(), bundle)
        return bundle

    return functools.cache(write)


@pytest.fixture(scope="session")
def exported(imported, tmp_path_factory):
    """Returns the folder for transformers of a layout by name, exported once. Read only."""

    def write(name):
        folder = tmp_path_factory.mktemp(f"{name}-hf") / "hf"
        export(imported(name), folder, "hf")
        return folder

    return functools.cache(write)


def bits(tensors):
    return {path: (tensor.dtype, tensor.read().tobytes()) for path, tensor in tensors.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_transformers_loads_what_we_write(name, exported, model_of):
    loaded, info = CLASSES[name].from_pretrained(exported(name), output_loading_info=True)
    assert not any(info.values()), info
    model, pictures = model_of(name), checkpoints.images(30)
    preprocessing = model.bundle.preprocessing
    pixels = normalise(preprocessing, np.stack([to_array(preprocessing, picture) for picture in pictures]))
    ids = model.bundle.tokenizer(TEXTS, model.bundle.context_length)
    ours = model.encode_image(pictures), model.encode_text(TEXTS)
    for one, two in zip(ours, encode_hf(loaded.eval())(np.asarray(pixels), ids), strict=True):
        np.testing.assert_allclose(one, unit(two), atol=2e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_the_exported_processor_gives_the_same_ids(name, exported, imported):
    processor = transformers.AutoProcessor.from_pretrained(exported(name))
    ours = open_bundle(imported(name))
    length = ours.context_length
    ids = processor(text=["red apple 7", "绿苹果 3"], padding="max_length", max_length=length)["input_ids"]
    np.testing.assert_array_equal(ids, ours.tokenizer(["red apple 7", "绿苹果 3"], length))


@pytest.mark.parametrize(("name", "to"), ROUND_TRIPS)
def test_import_export_import_is_exact(name, to, imported, checkpoint_of, tmp_path):
    out = tmp_path / ("out.pt" if to == "cn-clip" else "out")
    export(imported(name), out, to)
    source = checkpoint_of(name)[0]
    vocabulary = (source if source.is_dir() else source.parent) / "vocab.txt" if to == "cn-clip" else None
    first, again = open_bundle(imported(name)), import_model(str(out), CheckpointOptions(tokenizer=vocabulary)).bundle()
    assert bits(again.tensors()) == bits(first.tensors())
    assert (first.config, first.preprocessing) == (again.config, again.preprocessing)


@pytest.mark.parametrize("name", ["cn_clip_released", "cn_clip_resnet"])
def test_cn_clip_loads_strictly(name, imported, checkpoint_of, tmp_path):
    export(imported(name), tmp_path / "out.pt", "cn-clip")
    saved = torch.load(tmp_path / "out.pt", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in saved["state_dict"].items()}
    resnet = name == "cn_clip_resnet"
    other = checkpoints.cn_clip_model(tmp_path / "other", (2, 1, 1, 1) if resnet else 2)
    other.load_state_dict(state, strict=True)
    size = 64 if resnet else 30
    pictures = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    inputs = pictures, np.array([[2, 5, 7, 3], [2, 9, 3, 0]])
    for one, two in zip(checkpoint_of(name)[2](*inputs), encode_openai(other.eval())(*inputs), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_carried_exactly(dtype, tmp_path):
    source, bundle = tmp_path / "source", tmp_path / "bundle"
    model = checkpoints.chinese_clip(source)
    checkpoints.save_hf(model.to(dtype), source)
    save_bundle(import_model(str(source)).bundle(), bundle)
    kept = open_bundle(bundle).tensors()
    assert {str(tensor.dtype) for tensor in kept.values()} == {str(dtype).removeprefix("torch.")}
    loaded = jclip.load(bundle).params["text"]["word_embedding"]
    expected = model.text_model.embeddings.word_embeddings.weight.detach().float().numpy()
    np.testing.assert_array_equal(np.asarray(loaded), expected)
    export(bundle, tmp_path / "out", "hf")
    # Compares files, because transformers zeroes the row of padding whenever it loads one.
    before, after = (open_safetensors(tmp_path / name / "model.safetensors") for name in ("source", "out"))
    assert bits(before) == bits(after)


@pytest.mark.parametrize("bias", [None, -10.0])
def test_a_trained_bundle_is_exported(bias, imported, tmp_path):
    """The bundle comes from training, not from a checkpoint. The sigmoid bias, which the class lacks, is omitted."""
    bundle = open_bundle(imported("altclip_v4"))
    params = dict(bundle.params) | ({} if bias is None else {"logit_bias": np.float32(bias)})
    config = replace(bundle.config, logit_bias_init=bias)
    trained = Bundle(config, params, bundle.tokenizer, bundle.preprocessing, 16, provenance={"run": "x"})
    save_bundle(trained, tmp_path / "b")
    reader = export(tmp_path / "b", tmp_path / "hf", "hf")
    assert reader.startswith("transformers.AltCLIPModel") and ("without logit_bias" in reader) == (bias is not None)
    said = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert said["model_type"] == "altclip" and said["text_config"]["project_dim"] == 22
    assert not any(transformers.AltCLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)[1].values())


def test_a_parameter_that_the_table_lacks_is_refused():
    with pytest.raises(JclipError, match=r"^stranger has no key in such a checkpoint: keep the bundle"):
        export_tensors((), {"stranger": Lazy.of(np.zeros(()))})


@pytest.mark.parametrize(
    ("name", "to", "says"),
    [
        ("cn_clip_resnet", "hf", "no CLIP with a ResNet and a BERT: write this one with --to cn-clip"),
        ("altclip_v4", "cn-clip", "cn_clip has no model with an XLM-R and a head: write this one with --to hf"),
        ("chinese_clip_hf", "cn-clip", "cn_clip's BERT has .*: write this one with --to hf"),
    ],
)
def test_models_without_an_export_format_are_refused(name, to, says, imported, tmp_path):
    with pytest.raises(JclipError, match=says):
        export(imported(name), tmp_path / "out", to)
    assert list(tmp_path.iterdir()) == []
