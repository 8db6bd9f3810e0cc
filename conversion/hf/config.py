"""transformers' config.json of a model: for `--to hf`, and for the reference of a checkpoint without one."""

from dataclasses import dataclass
from typing import Any, Literal

from jclip.conversion.towers import BERT, CLIP_TEXT, XLM_R, format_of
from jclip.conversion.towers.bert import bert_to_hf
from jclip.conversion.towers.tower import TowerFormat
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig

HfFamily = Literal["altclip", "chinese-clip", "clip"]


@dataclass(frozen=True)
class HfModel:
    """Dual encoder of transformers.

    Attributes:
      family: Name of its family in jclip.
      model_type: Its model_type in config.json.
      class_name: Its class in transformers.
      text: Format of its text tower.
      head: True if it has AltCLIP's head.
    """

    family: HfFamily
    model_type: str
    class_name: str
    text: TowerFormat
    head: bool = False


_MODELS = (
    HfModel("altclip", "altclip", "AltCLIPModel", XLM_R, head=True),
    HfModel("chinese-clip", "chinese_clip", "ChineseCLIPModel", BERT),
    HfModel("clip", "clip", "CLIPModel", CLIP_TEXT),
)


def hf_model(config: DualEncoderConfig) -> HfModel:
    """Returns transformers' model with the towers of `config`. Raises JclipError if there is none."""
    image, text, head = format_of(config.image), format_of(config.text), config.head_width is not None
    for model in _MODELS:
        if image.hf is not None and (model.text, model.head) == (text, head):
            return model
    raise JclipError(f"transformers has no CLIP with {image.title} and {text.title}{' with a head' if head else ''}")


def hf_config(config: DualEncoderConfig) -> dict[str, Any]:
    """Returns config.json of a dual encoder. Raises JclipError if transformers has no such model."""
    model, image, text = hf_model(config), format_of(config.image).hf, format_of(config.text).hf
    width = {"projection_dim": config.embed_dim}
    head = {"project_dim": config.head_width} if model.head else {}
    return {
        "architectures": [model.class_name],
        "model_type": model.model_type,
        **width,
        "logit_scale_init_value": config.logit_scale_init,
        "text_config": (text(config.text) if text else {}) | width | head,
        "vision_config": (image(config.image) if image else {}) | width,
    }


def hf_encoder_config(config: TextEncoderConfig, model_type: str) -> dict[str, Any]:
    """Returns config.json of a text encoder; `model_type` is "bert" or "xlm-roberta"."""
    return {"model_type": model_type, **bert_to_hf(config.text)}
