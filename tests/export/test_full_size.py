"""Slow: exports of full-size towers at every length, and torch's own export of the converted models."""

import numpy as np
import onnxruntime
import pytest

from jclip.bundle import Bundle, save_bundle
from jclip.conversion import exporting
from jclip.data.sources.synthetic import write_tokenizer
from jclip.export.exporting import export
from jclip.export.formats import ExportOptions, format_named
from jclip.export.onnx_model import Tower, load_onnx
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.zoo import get_config
from tests.export import small_models

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("much_memory")]


def write(model, folder):
    return export(model, folder, format_named("onnx"), ExportOptions(), lambda words: None)


def random_model(config, words, context_length):
    found = small_models.variables(config)
    return Model(Bundle(config, found["params"], words, Preprocessing(size=config.image.image_size), context_length))


def texts_of_every_length(model):
    """Returns ids of every length up to the context, with their padding, and their features."""
    words, longest, draw = model.bundle.tokenizer, model.bundle.context_length, np.random.default_rng(0)
    begin, *_, end = words.encode([""], longest)[0]
    ids = np.full((longest - 2, longest), words.pad_id)
    for row, length in zip(ids, range(3, longest + 1), strict=True):
        row[:length] = [begin, *draw.integers(5, model.bundle.config.text.vocab_size - 2, length - 2), end]
    wanted = [np.asarray(model.apply(model.variables, part, method="encode_text")) for part in np.array_split(ids, 4)]
    wanted = np.concatenate(wanted)
    return ids, wanted / np.linalg.norm(wanted, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "kind", "context", "changed"),
    [("chinese-clip-vit-b-16", "wordpiece", 52, {}), ("altclip", "xlmr", 77, {"image": small_models.vit()})],
    ids=["chinese-clip-vit-b-16", "xlm-r-large"],
)
def test_full_size(name, kind, context, changed, tmp_path):
    """The XLM-R has 2.2 GB of parameters, so they are beside the graph."""
    config = DualEncoderConfig(**{**vars(get_config(name)), **changed})
    model = random_model(config, write_tokenizer(kind, tmp_path / "words"), context)
    record = write(model, tmp_path / "onnx")
    large = sum(leaf.size for leaf in _leaves(model.params["text"])) * 4 > 1_500_000_000
    assert record.own["towers"]["text"]["files"] == ["text.onnx", "text.onnx.data"][: 1 + large]
    assert large == (name == "altclip")
    if name != "altclip":
        images = np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), dtype=np.uint8)
        wanted, exported = model.encode_image(images), load_onnx(tmp_path / "onnx", tower="image")
        for size in (1, 2, 3, 7):
            np.testing.assert_allclose(exported.encode_image(images[:size]), wanted[:size], rtol=0, atol=1e-5)
    ids, wanted = texts_of_every_length(model)
    run = Tower(tmp_path / "onnx" / "text.onnx")
    np.testing.assert_allclose(run(ids[::5]), wanted[::5], rtol=0, atol=1e-5)
    for row, length, each in zip(ids, range(3, context + 1), wanted, strict=True):
        np.testing.assert_allclose(run(row[None, :length])[0], each, rtol=0, atol=1e-5)


def _leaves(tree):
    return [leaf for part in tree.values() for leaf in (_leaves(part) if isinstance(part, dict) else [part])]


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning")  # torch's own code
@pytest.mark.filterwarnings("ignore:# The axis name. batch will not be used:UserWarning")  # two inputs share it
@pytest.mark.parametrize("family", ["chinese-clip", "altclip"])
def test_torchs_own_export_agrees(family, tmp_path):
    """torch traces the model of transformers; jclip writes the graph from the parameters."""
    import torch
    import transformers

    model = small_models.model(family, tmp_path)
    save_bundle(model.bundle, tmp_path / "bundle")
    exporting.export(tmp_path / "bundle", tmp_path / "hf", "hf")
    write(model, tmp_path / "onnx")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    draw = np.random.default_rng(0)
    pixels = draw.normal(size=(3, 3, 32, 32)).astype(np.float32)
    texts = model.bundle.tokenizer(["red apple 1", "green", "红色苹果 7 8 9"], small_models.CONTEXT).astype(np.int64)
    mask = (texts != model.bundle.tokenizer.pad_id).astype(np.int64)
    inputs = {"image": (pixels,), "text": (texts, mask)}
    names = {
        "image": ("get_image_features", ["pixel_values"]),
        "text": ("get_text_features", ["input_ids", "attention_mask"]),
    }
    for tower, (method, takes) in names.items():
        one = _method(theirs, method, takes)
        arguments = tuple(torch.from_numpy(each) for each in inputs[tower])
        batch = {0: torch.export.Dim("batch", min=2)}
        torch.onnx.export(
            one, arguments, tmp_path / f"{tower}.onnx", dynamo=True, dynamic_shapes=(tuple(batch for _ in takes),)
        )
        session = onnxruntime.InferenceSession(tmp_path / f"{tower}.onnx", providers=["CPUExecutionProvider"])
        fed = dict(zip([each.name for each in session.get_inputs()], inputs[tower], strict=True))
        (traced,) = session.run(None, fed)
        traced /= np.linalg.norm(traced, axis=1, keepdims=True)
        ours = Tower(tmp_path / "onnx" / f"{tower}.onnx")(inputs[tower][0])
        np.testing.assert_allclose(ours, traced, rtol=0, atol=1e-5)


def _method(model, method, takes):
    import torch

    class Method(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            found = getattr(self.model, method)(**dict(zip(takes, values, strict=True)))
            return found if isinstance(found, torch.Tensor) else found.pooler_output

    return Method().eval()
