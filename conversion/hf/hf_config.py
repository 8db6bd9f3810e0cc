"""Our configurations in Hugging Face's words: config.json of what `--to hf` writes, and of references without one."""

from typing import Any

from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.transformer import CLIP_EPS

_CLASSES = {"altclip": "AltCLIPModel", "chinese_clip": "ChineseCLIPModel", "clip": "CLIPModel"}


def model_type(config: DualEncoderConfig) -> str:
    """Which of transformers' models this is: "altclip", "chinese_clip" or "clip".

    Raises:
      JclipError: none of them has these towers.
    """
    if isinstance(config.image, ResNetConfig):
        raise JclipError("transformers has no CLIP with a ResNet")
    if isinstance(config.text, ClipTextConfig):
        return "clip"
    if config.head_width is not None:
        return "altclip"
    if config.text.position_offset != "none":
        raise JclipError("transformers has no model whose XLM-R lacks AltCLIP's head")
    return "chinese_clip"


def dual(config: DualEncoderConfig) -> dict[str, Any]:
    """config.json of a dual encoder.

    Raises:
      JclipError: transformers has no such model.
    """
    kind, image, text = model_type(config), config.image, config.text
    assert not isinstance(image, ResNetConfig)
    vision = {
        "hidden_size": image.width,
        "intermediate_size": image.mlp_ratio * image.width,
        "num_hidden_layers": image.layers,
        "num_attention_heads": image.heads,
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "hidden_act": image.activation,
        "layer_norm_eps": CLIP_EPS,
        "attention_dropout": 0.0,
        "projection_dim": config.embed_dim,
    }
    words = _clip_text(text) if isinstance(text, ClipTextConfig) else _bert(text)
    words["projection_dim"] = config.embed_dim
    if config.head_width is not None:
        words["project_dim"] = config.head_width
    return {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale_init,
        "text_config": words,
        "vision_config": vision,
    }


def encoder(config: TextEncoderConfig, kind: str) -> dict[str, Any]:
    """config.json of a text encoder alone, `kind` being "bert" or "xlm-roberta"."""
    return {"model_type": kind, **_bert(config.text)}


def _bert(text: BertConfig) -> dict[str, Any]:
    return {
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": text.dropout,
        "attention_probs_dropout_prob": text.dropout if text.attention_dropout is None else text.attention_dropout,
        "max_position_embeddings": text.max_positions,
        "type_vocab_size": text.type_vocab_size,
        "layer_norm_eps": text.layer_norm_eps,
        "pad_token_id": text.pad_id,
        **({"bos_token_id": 0, "eos_token_id": 2} if text.position_offset == "after_padding" else {}),
    }


def _clip_text(text: ClipTextConfig) -> dict[str, Any]:
    end = text.vocab_size - 1
    return {
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context_length,
        "hidden_act": text.activation,
        "layer_norm_eps": CLIP_EPS,
        "attention_dropout": 0.0,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
