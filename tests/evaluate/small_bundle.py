"""A small untrained bundle, and variables of any model without compiling its initialisation."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jclip.bundle import Bundle, save_bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.images.preprocess import Preprocessing
from jclip.models.build import ModelConfig, init_variables, shapes
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig


def random_variables(config: ModelConfig) -> dict[str, Any]:
    """Returns variables of the right shapes with random values."""
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), shapes(config))


def write_small_bundle(place: Path) -> Path:
    """Writes the bundle into a folder of `place` and returns it."""
    tokenizer = write_tokenizer("clip_bpe", place / "words")
    text = ClipTextConfig(vocab_size=tokenizer.vocab_size, context_length=12, width=16, layers=1, heads=2)
    config = DualEncoderConfig(VitConfig(16, 8, 16, 1, 2), text, embed_dim=8)
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    save_bundle(Bundle(config, params, tokenizer, Preprocessing(16), 12), place / "bundle")
    return place / "bundle"
