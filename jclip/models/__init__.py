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
  TextEncoder, TextEncoderConfig: text encoder without an image tower.
  VitConfig, ResNetConfig, BertConfig, ClipTextConfig: the towers.
  Compute: precision, rematerialisation and attention of a model.
  ImageTower, TextTower: interfaces of towers, for your own; `jclip.models.towers` says how to add one.
  by_example: splits activations by example, as a tower of your own must for gradients on every mesh to be right.
  kind_of: registers a class of your own, so that configurations and bundles can name it.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.config import kind_of as kind_of
    from jclip.models.bert import BertConfig as BertConfig
    from jclip.models.build import build_model as build_model
    from jclip.models.build import init_variables as init_variables
    from jclip.models.build import shapes as shapes
    from jclip.models.clip_text import ClipTextConfig as ClipTextConfig
    from jclip.models.compute import Compute as Compute
    from jclip.models.dual_encoder import DualEncoder as DualEncoder
    from jclip.models.dual_encoder import DualEncoderConfig as DualEncoderConfig
    from jclip.models.resnet import ResNetConfig as ResNetConfig
    from jclip.models.spread import by_example as by_example
    from jclip.models.text_encoder import TextEncoder as TextEncoder
    from jclip.models.text_encoder import TextEncoderConfig as TextEncoderConfig
    from jclip.models.towers import ImageTower as ImageTower
    from jclip.models.towers import TextTower as TextTower
    from jclip.models.vit import VitConfig as VitConfig
    from jclip.models.zoo import get_config as get_config
    from jclip.models.zoo import list_models as list_models

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
