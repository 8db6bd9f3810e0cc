"""StableHLO exports of every kind of tower, reloaded where jclip cannot be imported."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

from jclip import rules
from jclip.bundle import Bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.encoding import text_encoder
from jclip.errors import JclipError
from jclip.export import exporting
from jclip.export.beside import write_beside
from jclip.export.formats import ExportOptions, format_named
from jclip.export.stablehlo import writing
from jclip.images.preprocess import Preprocessing, to_array
from jclip.inference import Model
from jclip.io.safetensors import open_safetensors
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig
from jclip.models.zoo import get_config, get_text_encoder
from jclip.tokenizers.text import pad
from tests.export.small_models import variables

SIDE, CONTEXT = 32, 20
SHAPES = {"image": [4], "text": [(1, 2), (3, CONTEXT)]}
"""Batch sizes of images, and batch sizes and lengths of texts. An export itself compares batches of 1 and 3."""
GUARANTEED = {"shape_assertion", "stablehlo.dynamic_reduce_window"}
"""Custom calls of symbolic shapes, whose compatibility jax guarantees."""


def small(name: str) -> object:
    """Returns a published model's configuration at a small size, with its kinds of towers, of a layer each."""
    if name == "sentences":
        return TextEncoderConfig(replace(get_text_encoder("roberta-wwm-base").reduced(9, CONTEXT), layers=1), "mean")
    config = get_config(name).reduced(SIDE, 9, CONTEXT)
    image = config.image if isinstance(config.image, ResNetConfig) else replace(config.image, layers=1)
    return replace(config, image=image, text=replace(config.text, layers=1))


def deep(config):
    """Returns the configuration with towers whose layers are scanned to the last."""
    return replace(config, image=replace(config.image, layers=5), text=replace(config.text, layers=5))


NAMES = ("chinese-clip-rn50", "clip-vit-b-32", "altclip", "sentences")  # every kind of tower


def small_model(config, folder) -> Model:
    tokenizer = write_tokenizer(config.text.tokenizer, folder / "tokenizer")
    config = replace(config, text=replace(config.text, vocab_size=tokenizer.vocab_size))
    drawn = variables(config)
    preprocessing = Preprocessing(size=SIDE) if hasattr(config, "image") else None
    return Model(Bundle(config, drawn["params"], tokenizer, preprocessing, CONTEXT, drawn.get("batch_stats", {})))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models of every kind and their exported folders."""
    root, found = tmp_path_factory.mktemp("stablehlo"), {}
    configs = {name: small(name) for name in NAMES}
    configs["altclip"] = deep(configs["altclip"])
    for name, config in configs.items():
        model = small_model(config, root / f"{name}-words")
        exporting.export(model, root / name, format_named("stablehlo"), ExportOptions(), lambda _: None)
        found[name] = model, root / name
    return found


_FRESH = """
import sys
sys.modules["jclip"] = None  # an import of it fails
import json, numpy as np
for place in json.loads(sys.argv[1]):
    sys.path[:] = [place + "/model", *sys.path[-4:]]
    sys.modules.pop("run", None)
    import run
    inputs = np.load(place + "/inputs.npz")
    towers = run.load(place + "/model")
    np.savez(place + "/features.npz", **{name: towers[name.partition("-")[0]](inputs[name]) for name in inputs})
"""


def batches(model: Model) -> dict[str, np.ndarray]:
    """Returns inputs of several shapes: {"text-0": ids, …}. Each text ends in padding, except the first."""
    draw, found = np.random.default_rng(3), {}
    if model.bundle.preprocessing is not None:
        for number, count in enumerate(SHAPES["image"]):
            found[f"image-{number}"] = draw.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    tokenizer = model.bundle.tokenizer
    for number, (count, length) in enumerate(SHAPES["text"]):
        ids = draw.integers(5, tokenizer.vocab_size - 2, (count, length)).astype(np.int32)
        for row in range(count):
            end = max(2, length - row)
            ids[row, end - 1], ids[row, end:] = tokenizer.vocab_size - 1, tokenizer.pad_id
        found[f"text-{number}"] = ids
    return found


def expected_of(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns jclip's features of each batch; those of texts in one batch, padded to the longest."""
    expected = {case: model.encode_image(images) for case, images in inputs.items() if case.startswith("image")}
    texts = {case: ids for case, ids in inputs.items() if case.startswith("text")}
    whole = pad([list(row) for ids in texts.values() for row in ids], CONTEXT, model.bundle.tokenizer.pad_id)
    features = np.asarray(text_encoder(model.bundle.config)(model.variables, whole))
    ends = np.cumsum([len(ids) for ids in texts.values()])
    return expected | dict(zip(texts, np.split(features, ends[:-1]), strict=True))


def test_features_without_jclip(exported, tmp_path):
    """Every kind of tower gives jclip's features for several batch sizes and lengths, in a process without jclip."""
    places = []
    for name, (model, folder) in exported.items():
        place = tmp_path / name
        place.mkdir()
        (place / "model").symlink_to(folder)
        np.savez(place / "inputs.npz", **batches(model))
        places.append(str(place))
    subprocess.run([sys.executable, "-c", _FRESH, json.dumps(places)], cwd=tmp_path, check=True, timeout=300)
    compared = 0
    for name, (model, _) in exported.items():
        found = np.load(tmp_path / name / "features.npz")
        inputs = batches(model)
        for case, expected in expected_of(model, inputs).items():
            np.testing.assert_allclose(found[case], expected, atol=1e-6, err_msg=f"{name} {case}")
            compared += len(expected)
    assert compared == 3 * 4 + 4 * 4


def test_loader_compares_the_examples(exported, tmp_path):
    """run.py succeeds on what was exported, and fails if the weights are of another model."""
    _, folder = exported["altclip"]
    (tmp_path / "run.py").write_bytes((folder / "run.py").read_bytes())
    for file in folder.glob("*.s*"):
        (tmp_path / file.name).symlink_to(file)
    run = [sys.executable, "run.py"]
    good = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.partition(":")[0] for line in good.stdout.splitlines()] == ["image", "text"]
    (tmp_path / "text.safetensors").unlink()
    bad = {name: tensor.read()[..., ::-1] for name, tensor in open_safetensors(folder / "text.safetensors").items()}
    writing.write_safetensors(tmp_path / "text.safetensors", bad)
    failed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr == ""


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_portable(exported, name):
    """They have every platform, and no operation of one library, such as cuDNN's attention."""
    _, folder = exported[name]
    for file in folder.glob("*.stablehlo"):
        function = export.deserialize(bytearray(file.read_bytes()))
        assert function.platforms == ("cpu", "cuda", "tpu")
        assert set(re.findall(r"custom_call @([\w.]+)", function.mlir_module())) <= GUARANTEED
        assert len(file.read_bytes()) < 200_000  # weights are arguments


def test_weights_are_the_models(exported):
    model, folder = exported["chinese-clip-rn50"]
    image, text = (open_safetensors(folder / f"{tower}.safetensors") for tower in ("image", "text"))
    wanted = {path: leaf for path, leaf in rules.paths_of(model.variables).items() if path != "params/logit_scale"}
    assert image.keys() | text.keys() == wanted.keys()
    assert any(path.startswith("batch_stats/image/") for path in image)
    for path, tensor in {**image, **text}.items():
        np.testing.assert_array_equal(tensor.read(), wanted[path])


def test_record(exported):
    model, folder = exported["sentences"]
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["source"]["identity"] == model.identity
    own = record["stablehlo"]
    assert (own["towers"], own["platforms"], own["jax"]) == (["text"], ["cpu", "cuda", "tpu"], jax.__version__)
    assert own["tokens"] == [2, model.bundle.config.text.longest]
    assert own["largest_difference"]["text"] <= 1e-6
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert model.identity in readme
    assert 'model["image"]' not in readme


def test_texts_of_other_lengths_are_refused(exported):
    """jax checks the limits, so that no position is silently clamped."""
    model, folder = exported["clip-vit-b-32"]
    text = writing.run.Tower(folder, "text")
    for length in (1, model.bundle.config.text.longest + 1):
        with pytest.raises(ValueError, match="l"):
            text(np.ones((1, length), np.int32))


def test_attention_does_not_ask_for_the_device(exported, monkeypatch, tmp_path):
    """On a GPU too, the exported attention is XLA's, which every platform has."""
    model, _ = exported["altclip"]
    monkeypatch.setattr("jclip.models.attention._device", lambda: pytest.fail("asked for the device"))
    for tower in ("image", "text"):
        assert writing.serialised(model.bundle, tower, writing.weights_of(model.bundle, tower))


class _Counting(nn.Module):
    @nn.compact
    def __call__(self, images_bhwc, train=False, rows_b=None):
        return nn.Dense(8, use_bias=False)(images_bhwc.mean(axis=(1, 2)))[: 2 if len(images_bhwc) > 2 else 1]


def picture_files(folder):
    """Files of several modes and sizes: a turned photograph, transparent borders, a palette, grey."""
    draw = np.random.default_rng(5)
    colours = Image.fromarray(draw.integers(0, 256, (50, 70, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    colours.save(folder / "turned.jpg", exif=turned)
    drawn = Image.new("RGBA", (61, 40))
    drawn.paste(colours.crop((0, 0, 20, 31)), (9, 4))
    drawn.save(folder / "drawn.png")
    colours.convert("P").save(folder / "palette.png", transparency=3)
    colours.convert("L").save(folder / "grey.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size=SIDE),
        Preprocessing(size=SIDE, resize="crop", orientation="apply"),
        Preprocessing(size=SIDE, background=(255, 250, 0), trim=True),
        Preprocessing(size=SIDE, background=(0, 0, 9)),
    ],
)
def test_loader_reads_files_as_jclip_does(exported, tmp_path, preprocessing):
    """Images equal jclip's bit by bit, and ids equal its tokenizer's."""
    model, _ = exported["chinese-clip-rn50"]
    (tmp_path / "pictures").mkdir()
    files, export_folder = picture_files(tmp_path / "pictures"), tmp_path / "export"
    export_folder.mkdir()
    write_beside(replace(model.bundle, preprocessing=preprocessing), export_folder)
    expected = np.stack([to_array(preprocessing, file) for file in files])
    np.testing.assert_array_equal(writing.run.pixels_of(export_folder, files), expected)
    texts = ["", "red apple 红色苹果", "blue castle " * 20]
    encoded = model.bundle.tokenizer.encode(texts, CONTEXT)
    np.testing.assert_array_equal(writing.run.ids_of(export_folder, texts), pad(encoded, CONTEXT, 0))


def test_a_tower_of_fixed_shape_is_refused(exported, monkeypatch):
    model, _ = exported["altclip"]
    monkeypatch.setattr(VitConfig, "build", lambda *args, **options: _Counting())
    with pytest.raises(JclipError, match=r"image tower: VitConfig cannot be exported for every batch size"):
        writing.serialised(model.bundle, "image", {"params/image/Dense_0/kernel": np.ones((3, 8), np.float32)})


def test_other_features_are_refused(exported, monkeypatch, tmp_path):
    """A function that rounds to bfloat16 is not written."""
    model, _ = exported["altclip"]
    monkeypatch.setattr(writing, "_PORTABLE", replace(writing._PORTABLE, dtype=jax.numpy.bfloat16))
    with pytest.raises(JclipError, match="image tower: the exported function differs from the model by"):
        exporting.export(model, tmp_path / "out", format_named("stablehlo"), ExportOptions(), lambda _: None)
    assert list(tmp_path.iterdir()) == []
