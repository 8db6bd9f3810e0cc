"""A family and two towers of another package: recognised, converted, compared with PyTorch, and verified."""

import numpy as np
import pytest
import torch
from torch import nn

import jclip
from jclip.conversion import Family, TowerFormat, convert, families, register_family, register_format, towers, verify
from jclip.conversion.families import detect
from jclip.conversion.parity import passport
from jclip.conversion.parity.references import Reference
from jclip.conversion.towers.rows import MappingRow, dense
from jclip.data.sources.synthetic import write_tokenizer
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from tests.toys import ToyImageConfig, ToyTextConfig


class Layers(nn.ModuleList):
    def __init__(self, width):
        super().__init__(nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x_bd):
        for layer in self:
            x_bd = x_bd + torch.tanh(layer(x_bd))
        return x_bd


class ToyTorch(nn.Module):
    """The toy towers in PyTorch."""

    def __init__(self, vocab_size, width=8, embed_dim=8):
        super().__init__()
        self.eye = nn.Linear(12, width, bias=False)
        self.eye_layers, self.ear_layers = Layers(width), Layers(width)
        self.ear = nn.Embedding(vocab_size, width)
        self.eye_out, self.ear_out = (nn.Linear(width, embed_dim, bias=False) for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def image(self, pixels_bchw):
        quarters_bcij = nn.functional.avg_pool2d(pixels_bchw, pixels_bchw.shape[-1] // 2)
        return self.eye_out(self.eye_layers(self.eye(quarters_bcij.permute(0, 2, 3, 1).flatten(1))))

    def text(self, ids_bl):
        mask_bl1 = (ids_bl != 0).float()[..., None]
        mean_bd = (self.ear(ids_bl) * mask_bl1).sum(1) / mask_bl1.sum(1).clamp(min=1)
        return self.ear_out(self.ear_layers(mean_bd))


def reference(said, config):
    model = ToyTorch(config.text.vocab_size)
    return Reference(
        "toys 1.0 ToyTorch",
        model,
        keys={"image": ("eye",), "text": ("ear",)},
        layers={"image": {"image/layers": "eye_layers"}, "text": {"text/layers": "ear_layers"}},
        encode={"image": model.image, "text": model.text},
    )


def config(sizes, keys, hints):
    vocab_size, width = sizes.shape("text/table", 2)
    image = ToyImageConfig(width=width, depth=sizes.layers("image/layers/kernel"))
    text = ToyTextConfig(vocab_size, width, sizes.layers("text/layers/kernel"))
    return DualEncoderConfig(image, text, sizes.shape("text/projection/kernel", 2)[1])


TABLE = (
    *dense("image/input", "eye", bias=False),
    *dense("image/layers", "eye_layers.{i}", bias=False),
    *dense("image/projection", "eye_out", bias=False),
    MappingRow("text/table", "ear.weight"),
    *dense("text/layers", "ear_layers.{i}", bias=False),
    *dense("text/projection", "ear_out", bias=False),
    MappingRow("logit_scale", "scale"),
)
TOYS = Family(
    name="toys",
    title="Toys",
    signature=("eye.weight", "ear.weight"),
    table=lambda keys: TABLE,
    config=config,
    reference=reference,
    dropped=(),
    tokenizer="wordpiece",
    context_length=20,
)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(ToyImageConfig, "conversion", "toy_image")
    monkeypatch.setattr(ToyTextConfig, "conversion", "toy_text")
    monkeypatch.setattr(towers, "_FORMATS", dict(towers._FORMATS))
    before = dict(families.FAMILIES)
    register_format("toy_image", TowerFormat("a toy"))
    register_format("toy_text", TowerFormat("a toy", token_embedding="text/table"))
    register_family(TOYS)
    yield
    families.FAMILIES.clear()
    families.FAMILIES.update(before)


def test_converted_compared_and_verified(toys, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    tokenizer = write_tokenizer("wordpiece", tmp_path / "made")
    (tmp_path / "made" / "vocab.txt").rename(source / "vocab.txt")
    torch.manual_seed(0)
    model = ToyTorch(tokenizer.vocab_size)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    made = convert(str(source), tmp_path / "bundle", report=lambda what: None)
    (facts,) = passport.read(tmp_path / "bundle")["sources"]
    assert made["sources"] == [facts] and facts["family"] == "toys" and facts["tensors"]["mapped"] == 11
    assert facts["comparison"]["reference"] == "toys 1.0 ToyTorch" and facts["comparison"]["logits"] < 1e-5
    assert [layer["name"] for layer in facts["comparison"]["layers"]] == ["image/layers", "text/layers"]
    assert all(check.holds for check in verify(tmp_path / "bundle", [str(source)], report=lambda what: None))
    texts = ["红苹果", "a red apple"]
    with torch.inference_mode():
        expected = nn.functional.normalize(model.text(torch.from_numpy(tokenizer(texts, 20)).long()))
    np.testing.assert_allclose(jclip.load(tmp_path / "bundle").encode_text(texts), expected, atol=1e-5)


def test_it_is_tried_first_and_its_name_is_its_own(toys):
    assert detect({"eye.weight": (8, 12), "ear.weight": (9, 8)}, {}) is TOYS
    assert next(iter(families.FAMILIES)) == "toys"
    register_family(TOYS)  # again, as by a module that is loaded twice
    with pytest.raises(JclipError, match="a family named 'clip' is registered already: choose another name"):
        register_family(Family(**{**vars(TOYS), "name": "clip"}))
    with pytest.raises(JclipError, match="a tower format named 'vit' is registered already: choose another name"):
        register_format("vit", TowerFormat("a toy"))


def test_a_bundle_of_such_towers_is_not_written_for_others(toys, tmp_path):
    with pytest.raises(JclipError, match="transformers has no CLIP with a toy and a toy"):
        families.hf_family(DualEncoderConfig(ToyImageConfig(), ToyTextConfig(), 8))
