"""cn_clip's own `load_from_name` on what `--to cn-clip` writes: the same features of the same pictures and texts."""

import tempfile
from dataclasses import replace
from pathlib import Path

import cn_clip.clip
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
# What cn_clip calls the file of each model that it would fetch; where it lies already, nothing is fetched.
FILES = {"RN50": "clip_cn_rn50.pt", "ViT-B-16": "clip_cn_vit-b-16.pt", "ViT-L-14-336": "clip_cn_vit-l-14-336.pt"}


@pytest.fixture
def place():
    """A folder that goes with its gigabytes at once."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def pictures():
    """Of odd shapes and modes."""
    draw = np.random.default_rng(0)
    shapes = [(90, 41, 3), (33, 200, 3), (224, 224, 4)]
    return [Image.fromarray(draw.integers(0, 256, shape, np.uint8) // (n + 1)) for n, shape in enumerate(shapes)]


def in_halves(tensor: Lazy) -> Lazy:
    """Values that float16 holds: `load_from_name` takes most weights through it, whatever the file has."""
    return Lazy(
        tensor.shape, tensor.dtype, lambda: (part.astype(np.float16).astype(np.float32) for part in tensor.parts())
    )


def write_bundle(config: DualEncoderConfig, folder: Path) -> None:
    """A trained model with cn_clip's vocabulary."""
    tensors = {path: in_halves(tensor) for path, tensor in full_size.parameters(config).items()}
    params, stats = map(rules.tree_from_paths, split_statistics(tensors))
    preprocessing = Preprocessing(config.image.image_size, resize="squash")
    tokenizer = load_tokenizer(real_models.CN_CLIP_VOCABULARY)
    save_bundle(Bundle(config, params, tokenizer, preprocessing, 52, stats), folder)


def agree(bundle, model, preprocess):
    """Whether cn_clip's model, used as its README does, gives the features that ours gives."""
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
        assert np.abs(expected - expected[0]).max() > 0.01  # or it would prove nothing
    np.testing.assert_allclose(ours.similarity_scale, scale, rtol=1e-6)


def check_released(name: str, place: Path) -> None:
    """By its name alone, as cn_clip loads what it has fetched."""
    write_bundle(zoo.get_config(f"chinese-clip-{name.lower()}"), place / "bundle")
    export(place / "bundle", place / FILES[name], "cn-clip")
    agree(place / "bundle", *cn_clip.clip.load_from_name(name, device="cpu", download_root=str(place)))


def test_a_resnet_by_its_name(place):
    check_released("RN50", place)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14-336"])
def test_a_vit_by_its_name(name, place):
    check_released(name, place)


def test_a_vit_by_its_path(place):
    """With the smallest of the text towers, so that it is quick; every line of `load_from_name` is the same."""
    vit, rbt3 = zoo.get_config("chinese-clip-vit-b-32"), zoo.get_config("chinese-clip-rn50").text
    write_bundle(replace(vit, text=rbt3), place / "bundle")
    export(place / "bundle", place / "mine.pt", "cn-clip")
    towers = {"vision_model_name": "ViT-B-32", "text_model_name": "RBT3-chinese", "input_resolution": 224}
    agree(place / "bundle", *cn_clip.clip.load_from_name(str(place / "mine.pt"), device="cpu", **towers))
