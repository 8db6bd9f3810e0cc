"""A bundle as a model of CLIP_benchmark. The tests do not install the package: a stand-in has its two tables, and the
tests call the model as its metrics do, both as in release 1.6.2."""

import sys
import types

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

import jclip
from jclip.bundle import Bundle, save_bundle
from jclip.cli import main
from jclip.conversion import clip_benchmark
from jclip.data.sources.synthetic import write_tokenizer
from jclip.images.preprocess import Preprocessing
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tokenizer = write_tokenizer("clip_bpe", place / "words")
    text = ClipTextConfig(vocab_size=tokenizer.vocab_size, context_length=12, width=16, layers=1, heads=2)
    config = DualEncoderConfig(VitConfig(16, 8, 16, 1, 2), text, embed_dim=8)
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    save_bundle(Bundle(config, params, tokenizer, Preprocessing(16), 12), place / "bundle")
    return place / "bundle"


@pytest.fixture
def stand_in(monkeypatch):
    """Installs stand-ins for two modules of CLIP_benchmark: models with their tables, and cli with a main."""
    package, models, cli = (types.ModuleType(f"clip_benchmark{part}") for part in ("", ".models", ".cli"))
    models.TYPE2FUNC = {"open_clip": None}
    models.MODEL_TYPES = ["open_clip"]
    cli.seen = []

    def run():
        arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
        cli.seen.append(sys.argv[:2])
        load = models.TYPE2FUNC[arguments["--model_type"]]
        assert arguments["--model_type"] in models.MODEL_TYPES
        cli.seen.append(load(model_name=arguments["--model"], pretrained=arguments["--pretrained"], cache_dir=None,
                             device="cpu"))  # fmt: skip
        return 0

    cli.main = run
    package.models, package.cli = models, cli
    for module in (package, models, cli):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return cli


def test_the_tensors_are_the_bundles_features(bundle):
    model, transform, tokenizer = clip_benchmark.load_benchmark_model(pretrained=str(bundle))
    model = model.to("cpu").eval()
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(5)]
    dataset = [(transform(picture), number) for number, picture in enumerate(pictures)]
    ours = jclip.load(bundle)
    found = torch.cat([F.normalize(model.encode_image(images), dim=-1) for images, _ in DataLoader(dataset, 2)])
    np.testing.assert_allclose(found.numpy(), ours.encode_image(pictures), atol=1e-6)
    texts = ["red apple", "blue castle 3"]
    np.testing.assert_allclose(
        model.encode_text(tokenizer(texts).to("cpu")).numpy(), ours.encode_text(texts), atol=1e-6
    )


def test_clip_benchmarks_command_line_gets_the_bundle(bundle, stand_in, capsys):
    assert main(["eval", "benchmark", str(bundle), "--dataset", "cifar10"]) == 0
    argv, (model, _, _) = stand_in.seen
    assert argv == ["clip_benchmark", "eval"]
    assert model.encode_text(["red apple"]).shape == (1, 8)


def test_a_missing_bundle_or_package_is_named(bundle, monkeypatch, capsys):
    assert main(["eval", "benchmark", "nowhere"]) == 1
    assert "nowhere is not a bundle" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "clip_benchmark", None)
    assert main(["eval", "benchmark", str(bundle)]) == 1
    assert "pip install clip-benchmark" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "benchmark"])
