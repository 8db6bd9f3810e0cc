"""Bundles that versions before the redesign wrote: their files, by hand, load with the same configuration and features.

The files follow `save_bundle` of commit 372fa3c, whose `jclip.load` gave these `FEATURES`.
"""

import json

import numpy as np
import pytest
from PIL import Image

import jclip
from jclip.images.preprocess import Preprocessing
from jclip.io.safetensors import write_safetensors
from jclip.models.bert import BertConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef猫狗"]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdef猫狗", "<mask>"]
VIT = {
    "type": "VitConfig", "image_size": 20, "patch_size": 10, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 4,
    "activation": "quick_gelu",
}  # fmt: skip
RESNET = {"type": "ResNetConfig", "image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "heads": 2}
BERT = {
    "type": "BertConfig", "vocab_size": 13, "width": 12, "layers": 2, "heads": 2, "intermediate": 20,
    "max_positions": 24, "type_vocab_size": 2, "pad_id": 0, "layer_norm_eps": 1e-12, "dropout": 0.1,
    "attention_dropout": None, "position_offset": "none",
}  # fmt: skip
XLM_R = BERT | {
    "vocab_size": 14, "max_positions": 26, "type_vocab_size": 1, "pad_id": 1, "layer_norm_eps": 1e-05,
    "position_offset": "after_padding",
}  # fmt: skip
PICTURES = {
    "type": "Preprocessing", "size": 20, "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711], "resize": "crop", "background": None, "trim": False,
    "orientation": "ignore",
}  # fmt: skip


def dual(image, text, head_width):
    return {
        "type": "DualEncoderConfig", "image": image, "text": text, "embed_dim": 8, "head_width": head_width,
        "logit_scale_init": 2.659260036932778, "logit_bias_init": None,
    }  # fmt: skip


def kernel(path, *shape):
    return {f"{path}/kernel": shape, f"{path}/bias": (*shape[:-2], shape[-1])}


def norm(path, *shape):
    return {f"{path}/scale": shape, f"{path}/bias": shape}


def layers(path, width, hidden):
    names = ("query", "key", "value", "output")
    attention = {
        key: shape for name in names for key, shape in kernel(f"{path}/attention/{name}", 2, width, width).items()
    }
    mlp = kernel(f"{path}/mlp/fc1", 2, width, hidden) | kernel(f"{path}/mlp/fc2", 2, hidden, width)
    return attention | mlp | norm(f"{path}/attention_norm", 2, width) | norm(f"{path}/mlp_norm", 2, width)


def vit():
    return {
        "image/class_embedding": (16,), "image/patch/kernel": (10, 10, 3, 16), "image/position_embedding": (5, 16),
        **norm("image/pre_norm", 16), **layers("image/layers", 16, 64), **norm("image/post_norm", 16),
        "image/projection/kernel": (16, 8),
    }  # fmt: skip


def resnet():
    def unit(name, conv, norm_, *shape):
        own = {f"image/{name}/{conv}/kernel": shape, **norm(f"image/{name}/{norm_}", shape[-1])}
        return own | {f"batch_stats/image/{name}/{norm_}/{each}": shape[-1:] for each in ("mean", "var")}

    found = {}
    for number, shape in enumerate(((3, 3, 3, 2), (3, 3, 2, 2), (3, 3, 2, 4)), 1):
        found |= unit("stem", f"conv_{number}", f"norm_{number}", *shape)
    for stage, (before, width) in enumerate(((4, 4), (16, 8), (32, 16), (64, 32)), 1):
        name = f"stage_{stage}_block_1"
        found |= unit(name, "conv_1", "norm_1", 1, 1, before, width) | unit(
            name, "conv_2", "norm_2", 3, 3, width, width
        )
        found |= unit(name, "conv_3", "norm_3", 1, 1, width, 4 * width)
        found |= unit(name, "shortcut_conv", "shortcut_norm", 1, 1, before, 4 * width)
    pool = "image/attention_pool"
    for name, width in (("query", 128), ("key", 128), ("value", 128), ("output", 8)):
        found |= kernel(f"{pool}/attention/{name}", 128, width)
    return found | {f"{pool}/position_embedding": (5, 128)}


def bert(config):
    return {
        "text/word_embedding": (config["vocab_size"], 12), "text/position_embedding": (config["max_positions"], 12),
        "text/token_type_embedding": (config["type_vocab_size"], 12), **norm("text/embedding_norm", 12),
        **layers("text/layers", 12, 20),
    }  # fmt: skip


HEAD = norm("text/head_norm", 12) | kernel("text/head", 12, 10) | {"text/projection/kernel": (10, 8), "logit_scale": ()}
PROJECTION = {"text/projection/kernel": (12, 8), "logit_scale": ()}
OUR_BERT = BertConfig(13, 12, 2, 2, 20, 24, 2, pad_id=0, layer_norm_eps=1e-12)
OUR_XLM_R = BertConfig(14, 12, 2, 2, 20, 26, 1, pad_id=1, layer_norm_eps=1e-5, position_offset="after_padding")
OUR_VIT, OUR_RESNET = VitConfig(20, 10, 16, 2, 2), ResNetConfig(64, (1, 1, 1, 1), 4, 2)
OLD = {
    "altclip": (
        dual(VIT, XLM_R, 10), PICTURES, "xlmr", vit() | bert(XLM_R) | HEAD,
        DualEncoderConfig(OUR_VIT, OUR_XLM_R, 8, head_width=10),
    ),
    "chinese_clip": (
        dual(VIT, BERT, None), PICTURES | {"resize": "squash"}, "wordpiece", vit() | bert(BERT) | PROJECTION,
        DualEncoderConfig(OUR_VIT, OUR_BERT, 8),
    ),
    "chinese_clip_rn50": (
        dual(RESNET, BERT, None), PICTURES | {"size": 64, "resize": "squash"}, "wordpiece",
        resnet() | bert(BERT) | PROJECTION, DualEncoderConfig(OUR_RESNET, OUR_BERT, 8),
    ),
    "encoder": (
        {"type": "TextEncoderConfig", "text": BERT, "pooling": "mean"}, None, "bert", bert(BERT),
        TextEncoderConfig(OUR_BERT, "mean"),
    ),
}  # fmt: skip
FEATURES = {
    "altclip": [0.04768, -0.68278, -0.03406, 0.10225, 0.20260, -0.27813, 0.09883, 0.19805, -0.31113],
    "chinese_clip": [0.33914, -0.41438, 0.37774, -0.27742, 0.31577, -0.48106, -0.24377, 0.31076, -0.47172],
    "chinese_clip_rn50": [
        -0.06512,
        0.36722,
        0.31162,
        -0.16947,
        -0.20959,
        0.01391,
        -0.24819,
        -0.15545,
        0.03689,
    ],
    "encoder": [-0.03529, -0.08476, -0.02697, -0.04269, -0.13645, 0.00865],
}
"""The first numbers of an image's features and of two texts'."""


def tensors(shapes):
    draw, found = np.random.default_rng(0), {}
    for path in sorted(shapes):
        noise = draw.standard_normal(shapes[path]).astype(np.float32)
        found[path] = 1 + noise / 8 if path.endswith("scale") else np.abs(noise) if path.endswith("var") else noise / 4
    return found


def write(name, folder):
    """Writes the files of an old bundle, except for the parameters."""
    model, preprocessing, kind, *_ = OLD[name]
    (folder / "tokenizer").mkdir(parents=True)
    record = {
        "format": 1, "model": model, "preprocessing": preprocessing, "context_length": 16,
        "provenance": {"run": "x", "stage": "two", "step": 3},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer" / "jclip_tokenizer.json").write_text(json.dumps({"format": 1, "kind": kind}) + "\n")
    if kind == "xlmr":
        special = [
            {
                "id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True,
            }
            for number, token in enumerate(PIECES) if token.startswith("<")
        ]  # fmt: skip
        vocab = [[token, -float(number)] for number, token in enumerate(PIECES)]
        pieces = {"version": "1.0", "added_tokens": special, "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab}}
        (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(pieces, ensure_ascii=False), encoding="utf-8")
    else:
        (folder / "tokenizer" / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")


def features(model, image_tower):
    rows = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3)
    picture = Image.fromarray((rows * rows % 251).astype(np.uint8))
    text = model.encode_text(["a cab 猫", "fed"])[:, :3]
    return [*(model.encode_image([picture])[0, :3] if image_tower else ()), *text.ravel()]


@pytest.mark.parametrize("name", OLD)
def test_an_old_bundle_loads(name, tmp_path):
    _, preprocessing, kind, shapes, config = OLD[name]
    write(name, tmp_path / "old")
    write_safetensors(tmp_path / "old" / "parameters.safetensors", tensors(shapes))
    model = jclip.load(tmp_path / "old")
    bundle = model.bundle
    assert bundle.config == config and bundle.context_length == 16 and bundle.tokenizer.kind == kind
    expected = preprocessing and Preprocessing(preprocessing["size"], resize=preprocessing["resize"])
    assert bundle.preprocessing == expected
    assert bundle.provenance == {"run": "x", "stage": "two", "step": 3}
    assert {path: leaf.shape for path, leaf in bundle.tensors().items()} == shapes
    np.testing.assert_allclose(features(model, preprocessing), FEATURES[name], atol=2e-5)
