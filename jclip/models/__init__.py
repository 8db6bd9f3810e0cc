"""The towers: Flax modules, used as pure functions through `init` and `apply`.

    config = jclip.models.create("chinese-clip-vit-b-16")
    variables = jclip.models.init(config, jax.random.key(0))
    model = jclip.models.module(config)
    outputs = model.apply(variables, images, ids)

Names:
  MODELS: the configurations of the published models, by name.
  create: returns the configuration of a published model, by name.
  create_text_encoder: returns the configuration of a published text encoder, by name.
  module: returns the Flax module of a configuration.
  init: returns new variables of a configuration.
  shapes: returns the shapes of a configuration's variables, without computing them.
  DualEncoder: the module with both towers.
  DualEncoderConfig: its configuration: an image tower, a text tower, a joint space.
  VitConfig: an image tower: vision transformer.
  ResNetConfig: an image tower: CLIP's ResNet.
  BertConfig: a text tower: BERT, RoBERTa-wwm or XLM-R.
  ClipTextConfig: a text tower: CLIP's.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.models.bert import BertConfig as BertConfig
    from jclip.models.build import build_model as module
    from jclip.models.build import init_variables as init
    from jclip.models.build import shapes as shapes
    from jclip.models.clip_text import ClipTextConfig as ClipTextConfig
    from jclip.models.dual_encoder import DualEncoder as DualEncoder
    from jclip.models.dual_encoder import DualEncoderConfig as DualEncoderConfig
    from jclip.models.resnet import ResNetConfig as ResNetConfig
    from jclip.models.vit import VitConfig as VitConfig
    from jclip.models.zoo import MODELS as MODELS
    from jclip.models.zoo import get as create
    from jclip.models.zoo import get_text_encoder as create_text_encoder

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "MODELS": "jclip.models.zoo:MODELS",
        "create": "jclip.models.zoo:get",
        "create_text_encoder": "jclip.models.zoo:get_text_encoder",
        "module": "jclip.models.build:build_model",
        "init": "jclip.models.build:init_variables",
        "shapes": "jclip.models.build:shapes",
        "DualEncoder": "jclip.models.dual_encoder:DualEncoder",
        "DualEncoderConfig": "jclip.models.dual_encoder:DualEncoderConfig",
        "VitConfig": "jclip.models.vit:VitConfig",
        "ResNetConfig": "jclip.models.resnet:ResNetConfig",
        "BertConfig": "jclip.models.bert:BertConfig",
        "ClipTextConfig": "jclip.models.clip_text:ClipTextConfig",
    },
)
