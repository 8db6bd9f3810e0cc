"""transformers' config.json of a model: for `--to hf`, and for the reference of a checkpoint without one."""

from dataclasses import dataclass
from typing import Any

from jclip.conversion.towers import format_of
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.names import TokenizerKind


@dataclass(frozen=True)
class HfModel:
    """Dual encoder of transformers.

    Attributes:
      name: beginning of its classes' names, such as "AltCLIP" in AltCLIPModel.
      model_type: its model_type in config.json.
      text: format of its text tower, see `jclip.conversion.towers`.
      layers: module of its text tower's encoder.
      tokenizers: kinds of tokenizer that it has, the usual one first.
      image_processor: class of its image processor.
      head: True if it has AltCLIP's head.
    """

    name: str
    model_type: str
    text: str
    layers: str
    tokenizers: tuple[TokenizerKind, ...]
    image_processor: str = "CLIPImageProcessor"
    head: bool = False


def hf_config(model: HfModel, config: DualEncoderConfig) -> dict[str, Any]:
    """Returns config.json of a dual encoder, which must have the towers of `model`."""
    image, text = format_of(config.image).hf, format_of(config.text).hf
    width = {"projection_dim": config.embed_dim}
    head = {"project_dim": config.head_width} if model.head else {}
    return {
        "architectures": [f"{model.name}Model"],
        "model_type": model.model_type,
        **width,
        "logit_scale_init_value": config.logit_scale_init,
        "text_config": (text(config.text) if text else {}) | width | head,
        "vision_config": (image(config.image) if image else {}) | width,
    }
