"""Towers and models: pure functions of parameters and input.

>>> import jax
>>> from jclip import models
>>> config = models.get_config("chinese-clip-vit-b-16").reduced(image_size=32, vocab_size=100, context_length=16)
>>> variables = models.init_variables(config, jax.random.key(0))
>>> encode = jax.jit(lambda ids: models.build_model(config).apply(variables, ids, method="encode_text"))
>>> encode(jax.numpy.ones((2, 16), int)).shape
(2, 64)

Names:
  list_models, get_config: names of the published models, and the configuration of one. Weights come from bundles.
  build_model, init_variables, shapes: module, fresh variables, and shapes of a configuration.
  DualEncoder, DualEncoderConfig: image tower and text tower with a joint space.
  TextEncoder, TextEncoderConfig: text encoder alone.
  VitConfig, ResNetConfig, BertConfig, ClipTextConfig: the towers.
  ImageTower, TextTower: interfaces of towers; `jclip.models.towers` says how to add one.
  Compute: precision, rematerialisation and attention of a model.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "list_models": "zoo",
    "get_config": "zoo",
    "build_model": "build",
    "init_variables": "build",
    "shapes": "build",
    "DualEncoder": "dual_encoder",
    "DualEncoderConfig": "dual_encoder",
    "TextEncoder": "text_encoder",
    "TextEncoderConfig": "text_encoder",
    "VitConfig": "vit",
    "ResNetConfig": "resnet",
    "BertConfig": "bert",
    "ClipTextConfig": "clip_text",
    "ImageTower": "towers",
    "TextTower": "towers",
    "Compute": "compute",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
