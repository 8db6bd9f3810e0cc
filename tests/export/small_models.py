"""A small model of every family and every kind of tower, with random weights that make features differ."""

from functools import cache

import jax
import numpy as np

from jclip.bundle import Bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.models.bert import BertConfig
from jclip.models.build import shapes
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig

CONTEXT = 10
_TOKENIZERS = {}


def tokenizer(kind, place):
    if kind not in _TOKENIZERS:
        _TOKENIZERS[kind] = write_tokenizer(kind, place / kind)
    return _TOKENIZERS[kind]


def bert(words, layers=2, **more):
    options = {"max_positions": 20, "type_vocab_size": 2, "pad_id": 0, "layer_norm_eps": 1e-12, **more}
    return BertConfig(words.vocab_size, 32, layers, 4, 64, **options)


def xlm_r(words, **more):
    offset = {"position_offset": "after_padding", "pad_id": 1, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
    return bert(words, **offset, **more)


def vit(**more):
    return VitConfig(**{"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 4, **more})


def clip_text(words, **more):
    return ClipTextConfig(words.vocab_size, 16, 32, 2, 4, **more)


def resnet():
    return ResNetConfig(image_size=32, layers=(1, 2, 1, 1), width=8, heads=4)


FAMILIES = {
    "chinese-clip": ("wordpiece", lambda words: DualEncoderConfig(vit(), bert(words), 24)),
    "chinese-clip-rn50": ("wordpiece", lambda words: DualEncoderConfig(resnet(), bert(words, layers=1), 24)),
    "altclip": ("xlmr", lambda words: DualEncoderConfig(vit(mlp_ratio=2), xlm_r(words), 24, head_width=16)),
    "clip": ("clip_bpe", lambda words: DualEncoderConfig(vit(layers=1), clip_text(words), 24)),
    "open-clip": (
        "clip_bpe",
        lambda words: DualEncoderConfig(vit(activation="gelu"), clip_text(words, activation="gelu"), 24),
    ),
    "encoder-cls": ("bert", lambda words: TextEncoderConfig(bert(words))),
    "encoder-mean": ("xlmr", lambda words: TextEncoderConfig(xlm_r(words), "mean")),
}
"""Kind of tokenizer, and function of the tokenizer that returns the configuration."""


def variables(config, seed=0):
    """Returns random variables: kernels that keep the size of the states, and statistics of a batch norm."""
    draw = np.random.default_rng(seed)

    def leaf(path, shape):
        name = path[-1].key
        values = draw.normal(size=shape.shape).astype(np.float32)
        if name == "scale":
            return 1 + 0.3 * np.abs(values)
        if name == "var":
            return 1e-3 + 0.1 * values**2  # some so small that the norm's epsilon matters
        if name == "kernel":
            return values / np.sqrt(np.prod(shape.shape[-len(shape.shape) + ("layers" in str(path)) : -1]))
        return 0.3 * values

    return jax.tree_util.tree_map_with_path(leaf, shapes(config))


@cache
def model(family, place, **preprocessing):
    """Returns the model of a family, its tokenizer made in folder `place`."""
    kind, make = FAMILIES[family]
    words = tokenizer(kind, place)
    config = make(words)
    found = variables(config)
    settings = Preprocessing(size=32) if isinstance(config, DualEncoderConfig) else None
    params = found["params"]
    if "logit_scale" in params:
        params["logit_scale"] = np.float32(2.5)
    # Batches of 4, so that the images with which an export is compared have the only shape that is compiled.
    return Model(Bundle(config, params, words, settings, CONTEXT, found.get("batch_stats", {})), batch_size=4)
