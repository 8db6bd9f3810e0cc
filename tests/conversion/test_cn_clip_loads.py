"""cn_clip's own `load_from_name` reads the result of `--to cn-clip` and gives the same features."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import cn_clip.clip
import cn_clip.clip.utils
import numpy as np
import pytest
import torch
from cn_clip.eval.data import _preprocess_text
from PIL import Image

import jclip
from jclip import rules
from jclip.bundle import Bundle, save_bundle, split_statistics
from jclip.conversion import export
from jclip.conversion.parity.comparison import EMBEDDINGS_WITHIN
from jclip.images.preprocess import Preprocessing
from jclip.io.tensors import Lazy
from jclip.models import zoo
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.tokenizers.text import load_tokenizer
from tests.conversion import full_size, real_models
from tests.models.parity import unit

TEXTS = ["红苹果", "一只在草地上奔跑的狗", "", "A blue castle, 12 hammers", "“引号”和很长的句子" * 9]
# Names of the files that cn_clip downloads; it uses a file that exists already.
FILES = {"RN50": "clip_cn_rn50.pt", "ViT-B-16": "clip_cn_vit-b-16.pt", "ViT-L-14-336": "clip_cn_vit-l-14-336.pt"}


@pytest.fixture
def place():
    """Folder that is removed right after the test, because it may hold gigabytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def pictures():
    """Returns images of odd shapes and modes."""
    draw = np.random.default_rng(0)
    shapes = [(90, 41, 3), (33, 200, 3), (224, 224, 4)]
    return [Image.fromarray(draw.integers(0, 256, shape, np.uint8) // (n + 1)) for n, shape in enumerate(shapes)]


def in_halves(tensor: Lazy) -> Lazy:
    """Rounds to float16, as `load_from_name` does with most weights."""
    return Lazy(
        tensor.shape, tensor.dtype, lambda: (part.astype(np.float16).astype(np.float32) for part in tensor.parts())
    )


def write_bundle(config: DualEncoderConfig, folder: Path) -> None:
    """Writes a bundle with cn_clip's vocabulary and no passport."""
    tensors = {path: in_halves(tensor) for path, tensor in full_size.parameters(config).items()}
    params, stats = map(rules.tree_from_paths, split_statistics(tensors))
    preprocessing = Preprocessing(config.image.image_size, resize="squash")
    tokenizer = load_tokenizer(real_models.CN_CLIP_VOCABULARY)
    save_bundle(Bundle(config, params, tokenizer, preprocessing, 52, stats), folder)


def agree(bundle, model, preprocess):
    """Checks that cn_clip's model, used as in its README, gives the same features as ours."""
    model.eval()
    with torch.inference_mode():
        image = model.encode_image(torch.stack([preprocess(picture) for picture in pictures()]))
        text = model.encode_text(cn_clip.clip.tokenize([_preprocess_text(text) for text in TEXTS]))
    scale = model.logit_scale.exp().item()
    del model
    ours = jclip.load(bundle)
    for rows, theirs in ((ours.encode_image(pictures()), image), (ours.encode_text(TEXTS), text)):
        expected = unit(theirs.numpy())
        np.testing.assert_allclose(rows, expected, rtol=0, atol=EMBEDDINGS_WITHIN)
        assert np.abs(expected - expected[0]).max() > 0.01  # equal rows would prove nothing
    np.testing.assert_allclose(ours.similarity_scale, scale, rtol=1e-6)


def check_released(name: str, config: DualEncoderConfig, place: Path) -> None:
    """Loads a model by its name alone, as cn_clip does after a download."""
    write_bundle(config, place / "bundle")
    export(place / "bundle", place / FILES[name], "cn-clip")
    agree(place / "bundle", *cn_clip.clip.load_from_name(name, device="cpu", download_root=str(place)))


@pytest.fixture
def small(place, monkeypatch):
    """Makes some towers of cn_clip small by replacing its configuration files; returns the small text tower."""
    folder = Path(cn_clip.clip.utils.__file__).parent / "model_configs"
    (place / "model_configs").mkdir()
    for name, sizes in {
        "RN50": {"embed_dim": 64, "vision_layers": [1, 2, 1, 1], "vision_width": 8},
        "ViT-B-32": {"embed_dim": 64, "vision_layers": 2, "vision_width": 128},
        "RBT3-chinese": {"text_hidden_size": 128, "text_intermediate_size": 256, "text_num_attention_heads": 2},
    }.items():
        said = json.loads((folder / f"{name}.json").read_text()) | sizes
        (place / "model_configs" / f"{name}.json").write_text(json.dumps(said))
    monkeypatch.setattr(cn_clip.clip.utils, "__file__", str(place / "utils.py"))
    return replace(zoo.get_config("chinese-clip-rn50").text, width=128, heads=2, intermediate=256)


@pytest.mark.slow
def test_a_small_resnet_by_its_name(small, place):
    image = replace(zoo.get_config("chinese-clip-rn50").image, layers=(1, 2, 1, 1), width=8, heads=4)
    check_released("RN50", DualEncoderConfig(image, small, 64), place)


def test_a_small_vit_by_its_path(small, place):
    image = replace(zoo.get_config("chinese-clip-vit-b-32").image, layers=2, width=128, heads=2)
    write_bundle(DualEncoderConfig(image, small, 64), place / "bundle")
    export(place / "bundle", place / "mine.pt", "cn-clip")
    towers = {"vision_model_name": "ViT-B-32", "text_model_name": "RBT3-chinese", "input_resolution": 224}
    agree(place / "bundle", *cn_clip.clip.load_from_name(str(place / "mine.pt"), device="cpu", **towers))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_published_size_by_its_name(name, place):
    check_released(name, zoo.get_config(f"chinese-clip-{name.lower()}"), place)
