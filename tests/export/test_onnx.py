"""ONNX exports equal their models, on odd batches and every length."""

import numpy as np
import pytest

from jclip.encoding import text_encoder
from jclip.export.exporting import export
from jclip.export.formats import ExportOptions, format_named
from jclip.export.onnx_model import load_onnx
from tests.export import small_models
from tests.export.small_models import CONTEXT, FAMILIES

TEXTS = [
    "red apple 1",
    "green",
    "red apple 12 blue house 3 4 5 6 7 8 9 10",
    "",
    "红色苹果 7",
    "yellow bicycle 5",
    "a b",
    "green house",
    "blue",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, place, tmp_path_factory):
    """The model of each family, and its export."""
    model, folder = small_models.model(request.param, place), tmp_path_factory.mktemp("export") / request.param
    export(model, folder, format_named("onnx"), ExportOptions(), lambda words: None)
    return model, load_onnx(folder)


def images(count):
    blocks = np.random.default_rng(count).integers(0, 256, (count, 2, 4, 3), dtype=np.uint8)
    return blocks.repeat(16, axis=1).repeat(8, axis=2)


def features(model, ids):
    """Returns the model's features of ids, three at a time, because the export has compiled that shape."""
    encode = text_encoder(model.bundle.config)
    return np.concatenate([encode(model.variables, ids[at : at + 3].astype(np.int32)) for at in range(0, len(ids), 3)])


def test_equal_on_odd_batches(pair):
    model, onnx = pair
    batch = images(7)
    if "image" in model.bundle.config.towers:
        wanted = model.encode_image(batch)
        assert np.abs(wanted[0] - wanted[1]).max() > 1e-3  # images differ
        for size in (1, 2, 3, 7):
            np.testing.assert_allclose(onnx.encode_image(batch[:size]), wanted[:size], rtol=0, atol=1e-5)
    wanted = features(model, model.bundle.tokenizer(TEXTS, CONTEXT))
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3
    for size in (1, 2, 3, 7, 9):
        np.testing.assert_allclose(onnx.encode_text(TEXTS[:size]), wanted[:size], rtol=0, atol=1e-5)


def test_equal_at_every_length(pair):
    """Padding is masked inside the graph, so a text has the same features in any batch."""
    model, onnx = pair
    words = model.bundle.tokenizer
    draw = np.random.default_rng(1)
    begin, *_, end = words.encode([""], CONTEXT)[0]
    lengths = [*range(3, CONTEXT + 1), CONTEXT]
    ids = np.full((len(lengths), CONTEXT), words.pad_id)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = [begin, *draw.integers(4, words.vocab_size - 2, length - 2), end]
    wanted = features(model, ids)
    run = onnx._encoder._towers["text"]
    np.testing.assert_allclose(run(ids), wanted, rtol=0, atol=1e-5)
    for row, length, each in zip(ids, lengths, wanted, strict=True):
        np.testing.assert_allclose(run(row[None, :length])[0], each, rtol=0, atol=1e-5)
