"""In, out and in again is the same to the bit, and others' libraries load what we write."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import jclip
from jclip.bundle import Bundle, open_bundle, save_bundle
from jclip.conversion import ConvertOptions, convert, export
from jclip.conversion.mapping import export_tensors
from jclip.errors import JclipError
from jclip.images.preprocess import normalise, to_array
from jclip.io.safetensors import open_safetensors
from jclip.io.tensors import Lazy
from tests.conversion import checkpoints, test_families
from tests.conversion.checkpoints import encode_hf, encode_openai
from tests.models.parity import unit
from tests.models.torch_weights import randomise

CLASSES = {
    "altclip_v4": transformers.AltCLIPModel,
    "chinese_clip_hf": transformers.ChineseCLIPModel,
    "clip_hf_gelu": transformers.CLIPModel,
}


def bits(folder):
    """Every tensor of a bundle, as bytes."""
    return {path: (t.dtype, t.read().tobytes()) for path, t in open_bundle(folder).tensors().items()}


def quiet(what):
    pass


def bundle_of(make, folder):
    source, options, _ = make(folder / "source")
    convert(str(source), folder / "bundle", options, quiet)
    return folder / "bundle"


@pytest.mark.parametrize("name", CLASSES)
def test_transformers_loads_what_we_write(name, tmp_path):
    bundle = bundle_of(getattr(test_families, name), tmp_path)
    export(bundle, tmp_path / "hf", "hf")
    loaded, info = CLASSES[name].from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values()), info
    model = jclip.load(bundle)
    pictures, texts = checkpoints.images(30), test_families.TEXTS
    preprocessing = model.bundle.preprocessing
    pixels = normalise(preprocessing, np.stack([to_array(preprocessing, picture) for picture in pictures]))
    ids = model.bundle.tokenizer(texts, model.bundle.context_length)
    for ours, theirs in zip(
        (model.encode_image(pictures), model.encode_text(texts)),
        encode_hf(loaded.eval())(np.asarray(pixels), ids),
        strict=True,
    ):
        np.testing.assert_allclose(ours, unit(theirs), atol=2e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_a_processor_comes_along(name, tmp_path):
    bundle = bundle_of(getattr(test_families, name), tmp_path)
    export(bundle, tmp_path / "hf", "hf")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "hf")
    ours = open_bundle(bundle)
    length = ours.context_length
    ids = processor(text=["red apple 7", "绿苹果 3"], padding="max_length", max_length=length)["input_ids"]
    np.testing.assert_array_equal(ids, ours.tokenizer(["red apple 7", "绿苹果 3"], length))


def chinese_clip_of_cn_clips_shape(folder):
    """Heads of 64 channels, perceptrons 4 times as wide: what a cn_clip checkpoint does not say."""
    text = checkpoints.bert_words(checkpoints.vocabulary("wordpiece", folder))
    text |= {"hidden_size": 128, "num_attention_heads": 2}
    vision = checkpoints.VISION | {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=13)
    model = randomise(transformers.ChineseCLIPModel(config))
    return checkpoints.save_hf(model, folder), ConvertOptions(), encode_hf(model)


ROUND_TRIPS = [
    (test_families.altclip_old_bin, "hf"),
    (test_families.chinese_clip_hf, "hf"),
    (test_families.clip_hf, "hf"),
    (test_families.openai_vit, "hf"),  # float16 and float32 together
    (test_families.cn_clip_flash, "hf"),
    (test_families.cn_clip_released, "cn-clip"),
    (test_families.cn_clip_resnet, "cn-clip"),
    (chinese_clip_of_cn_clips_shape, "cn-clip"),
]


@pytest.mark.parametrize(("make", "to"), ROUND_TRIPS, ids=lambda value: getattr(value, "__name__", value))
def test_in_out_in_is_the_same_to_the_bit(make, to, tmp_path):
    bundle = bundle_of(make, tmp_path)
    out = tmp_path / ("out.pt" if to == "cn-clip" else "out")
    export(bundle, out, to)
    tokenizer = tmp_path / "source" / "vocab.txt" if to == "cn-clip" else None
    convert(str(out), tmp_path / "again", ConvertOptions(tokenizer=tokenizer), quiet)
    assert bits(tmp_path / "again") == bits(bundle)
    first, second = open_bundle(bundle), open_bundle(tmp_path / "again")
    assert (first.config, first.preprocessing) == (second.config, second.preprocessing)


@pytest.mark.parametrize("layers", [2, (2, 1, 1, 1)], ids=["vit", "resnet"])
def test_cn_clip_loads_strictly(layers, tmp_path):
    source = tmp_path / "source"
    model = checkpoints.cn_clip_model(source, layers)
    torch.save(test_families._released(checkpoints.state(model)), source / "clip_cn.pt")
    convert(str(source / "clip_cn.pt"), tmp_path / "bundle", ConvertOptions(tokenizer=source / "vocab.txt"), quiet)
    export(tmp_path / "bundle", tmp_path / "out.pt", "cn-clip")
    saved = torch.load(tmp_path / "out.pt", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in saved["state_dict"].items()}
    other = checkpoints.cn_clip_model(tmp_path / "other", layers)
    other.load_state_dict(state, strict=True)
    pictures = np.random.default_rng(0).normal(size=(2, 64 if layers != 2 else 30, 64 if layers != 2 else 30, 3))
    ids = np.array([[2, 5, 7, 3], [2, 9, 3, 0]])
    inputs = pictures.astype(np.float32), ids
    for one, two in zip(encode_openai(model)(*inputs), encode_openai(other.eval())(*inputs), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_carried_exactly(dtype, tmp_path):
    source = tmp_path / "source"
    model = checkpoints.chinese_clip(source)
    checkpoints.save_hf(model.to(dtype), source)
    convert(str(source), tmp_path / "bundle", ConvertOptions(), quiet)
    kept = open_bundle(tmp_path / "bundle").tensors()
    assert {str(tensor.dtype) for tensor in kept.values()} == {str(dtype).removeprefix("torch.")}
    loaded = jclip.load(tmp_path / "bundle").params["text"]["word_embedding"]
    expected = model.text_model.embeddings.word_embeddings.weight.detach().float().numpy()
    np.testing.assert_array_equal(np.asarray(loaded), expected)
    export(tmp_path / "bundle", tmp_path / "out", "hf")
    # The files, for transformers sets the row of padding to zero when it loads either.
    before, after = (open_safetensors(tmp_path / name / "model.safetensors") for name in ("source", "out"))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert (tensor.dtype, tensor.read().tobytes()) == (after[key].dtype, after[key].read().tobytes()), key


@pytest.mark.parametrize("bias", [None, -10.0])
def test_a_trained_model_goes_out_too(tmp_path, bias):
    """A bundle that never was a checkpoint; the sigmoid loss's bias, which the class does not have, stays behind."""
    bundle = open_bundle(bundle_of(test_families.altclip_v4, tmp_path))
    params = dict(bundle.params) | ({} if bias is None else {"logit_bias": np.float32(bias)})
    config = replace(bundle.config, logit_bias_init=bias)
    save_bundle(
        Bundle(config, params, bundle.tokenizer, bundle.preprocessing, 16, provenance={"run": "x"}), tmp_path / "b"
    )
    reader = export(tmp_path / "b", tmp_path / "hf", "hf")
    assert reader.startswith("transformers.AltCLIPModel") and ("without logit_bias" in reader) == (bias is not None)
    said = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert said["model_type"] == "altclip" and said["text_config"]["project_dim"] == 22
    assert not any(transformers.AltCLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)[1].values())


def test_a_parameter_without_a_place_is_refused():
    with pytest.raises(JclipError, match=r"^stranger has no place in such a checkpoint"):
        export_tensors((), {"stranger": Lazy.of(np.zeros(()))})


def test_what_others_lack_is_said(tmp_path):
    resnet = bundle_of(test_families.cn_clip_resnet, tmp_path / "resnet")
    with pytest.raises(JclipError, match=r"no CLIP with a ResNet: write this one with --to cn-clip"):
        export(resnet, tmp_path / "hf", "hf")
    altclip = bundle_of(test_families.altclip_v4, tmp_path / "altclip")
    with pytest.raises(JclipError, match=r"cn_clip has no model with this text tower: write this one with --to hf"):
        export(altclip, tmp_path / "x.pt", "cn-clip")
    odd = bundle_of(test_families.chinese_clip_hf, tmp_path / "odd")
    with pytest.raises(JclipError, match=r"cn_clip's BERT has .*: write this one with --to hf"):
        export(odd, tmp_path / "x.pt", "cn-clip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["altclip", "odd", "resnet"]
