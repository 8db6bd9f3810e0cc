"""A tiny untrained Chinese-CLIP whose vocabulary covers the captions of drawn shapes."""

import jax

from jclip.bundle import Bundle, save_bundle
from jclip.demo import practice
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.models.bert import BertConfig
from jclip.models.build import init_variables
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig
from jclip.tokenizers.text import wordpiece


def write_bundle(folder, seed=0):
    letters = sorted({*"".join((*practice._COLOURS, *practice._SHAPES)), *"色的猫狗"})
    tokenizer = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters])
    text = BertConfig(
        vocab_size=tokenizer.vocab_size,
        width=64,
        layers=1,
        heads=2,
        intermediate=128,
        max_positions=16,
        type_vocab_size=2,
        pad_id=0,
        layer_norm_eps=1e-12,
    )
    image = VitConfig(image_size=32, patch_size=8, width=64, layers=2, heads=2)
    config = DualEncoderConfig(image, text, embed_dim=64)
    params = jax.device_get(init_variables(config, jax.random.key(seed)))["params"]
    preprocessing = Preprocessing(size=32, mean=CLIP_MEAN, std=CLIP_STD)
    save_bundle(Bundle(config, params, tokenizer, preprocessing, context_length=16), folder)
    return folder
