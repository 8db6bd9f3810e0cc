"""The published models as their makers' own classes build them, at their real sizes.

Nothing here comes from jclip: sizes are those of cn_clip's and open_clip's packages, and for transformers those of the
configurations that were published with the weights.
"""

import json
from pathlib import Path
from typing import Any

import cn_clip.clip
import open_clip
import torch
import transformers

_B32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
_B16 = _B32 | {"patch_size": 16}
_L14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
_L14_336 = _L14 | {"image_size": 336}
_H14 = _L14 | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
_BERT_BASE = {
    "vocab_size": 21128,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_XLM_R_BASE = _BERT_BASE | {
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
_XLM_R_LARGE = _XLM_R_BASE | _LARGE
_CLIP_B = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
_CLIP_L = _CLIP_B | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_CLIP_H = _CLIP_B | _LARGE | {"hidden_act": "gelu"}

# Models of transformers: image tower, text tower, width of the joint space.
_HF: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "altclip": (_L14, _XLM_R_LARGE | {"project_dim": 768}, 768),
    "altclip-m9": (_L14, _XLM_R_LARGE | {"project_dim": 768}, 768),
    "altclip-m18": (_H14, _XLM_R_LARGE | {"project_dim": 1024}, 1024),
    "chinese-clip-vit-b-16": (_B16, _BERT_BASE, 512),
    "chinese-clip-vit-l-14": (_L14, _BERT_BASE, 768),
    "chinese-clip-vit-l-14-336": (_L14_336, _BERT_BASE, 768),
    "chinese-clip-vit-h-14": (_H14, _BERT_BASE | _LARGE, 1024),
    "clip-vit-b-32": (_B32, _CLIP_B, 512),
    "clip-vit-b-16": (_B16, _CLIP_B, 512),
    "clip-vit-l-14": (_L14, _CLIP_L, 768),
    "clip-vit-l-14-336": (_L14_336, _CLIP_L, 768),
    "clip-vit-h-14": (_H14 | {"hidden_act": "gelu"}, _CLIP_H, 1024),  # LAION's
}
_ENCODERS: dict[str, dict[str, Any]] = {
    "rbt3": _BERT_BASE | {"num_hidden_layers": 3},
    "roberta-wwm-base": _BERT_BASE,
    "roberta-wwm-large": _BERT_BASE | _LARGE,
    "xlm-r-base": _XLM_R_BASE,
    "xlm-r-large": _XLM_R_LARGE,
}
# cn_clip's names; "@" separates the towers, as in its own table.
CN_CLIP = {
    "chinese-clip-rn50": "RN50@RBT3-chinese",
    "chinese-clip-vit-b-32": "ViT-B-32@RoBERTa-wwm-ext-base-chinese",
    "chinese-clip-vit-b-16": "ViT-B-16@RoBERTa-wwm-ext-base-chinese",
    "chinese-clip-vit-l-14": "ViT-L-14@RoBERTa-wwm-ext-base-chinese",
    "chinese-clip-vit-l-14-336": "ViT-L-14-336@RoBERTa-wwm-ext-base-chinese",
    "chinese-clip-vit-h-14": "ViT-H-14@RoBERTa-wwm-ext-large-chinese",
}
CN_CLIP_VOCABULARY = Path(cn_clip.clip.__file__).parent / "vocab.txt"
_OPEN_CLIP = {
    "clip-rn50": "RN50-quickgelu",
    "clip-vit-b-32": "ViT-B-32-quickgelu",
    "clip-vit-b-16": "ViT-B-16-quickgelu",
    "clip-vit-l-14": "ViT-L-14-quickgelu",
    "clip-vit-l-14-336": "ViT-L-14-336-quickgelu",
    "clip-vit-h-14": "ViT-H-14",
}
REAL = (
    *((name, "cn-clip") for name in CN_CLIP),
    *((name, "altclip" if name.startswith("altclip") else name.partition("-vit")[0]) for name in _HF),
    *((name, "open-clip" if name.endswith("h-14") else "openai-clip") for name in _OPEN_CLIP),
    *((name, "xlm-r" if name.startswith("xlm-r") else "bert") for name in _ENCODERS),
)
"""Every model in every layout in which it was published: (name of the zoo, family)."""


def build(name: str, family: str, **options: Any) -> Any:
    """Builds a model on torch's default device; under `torch.device("meta")` it takes no memory.

    Args:
      name: of a model of the zoo.
      family: whose class to build.
      options: for the class, for example open_clip's `cast_dtype`.
    """
    if family == "cn-clip":
        return cn_clip.clip.model.CLIP(**_cn_clip_config(CN_CLIP[name]), **options)
    if family in ("openai-clip", "open-clip"):
        return open_clip.model.CLIP(**open_clip.get_model_config(_OPEN_CLIP[name]), **options)
    if family == "bert":
        return transformers.BertModel(transformers.BertConfig(**_ENCODERS[name]), **options)
    if family == "xlm-r":
        return transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**_ENCODERS[name]), **options)
    make, config = {
        "altclip": (transformers.AltCLIPModel, transformers.AltCLIPConfig),
        "chinese-clip": (transformers.ChineseCLIPModel, transformers.ChineseCLIPConfig),
        "clip": (transformers.CLIPModel, transformers.CLIPConfig),
    }[family]
    image, text, width = _HF[name]
    return make(config(vision_config=image, text_config=text, projection_dim=width), **options)


def shapes(name: str, family: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model's state dict by key."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build(name, family).state_dict().items()}


def cn_clip_with(name: str, state: dict[str, torch.Tensor]) -> Any:
    """Returns cn_clip's model with these weights, loaded strictly and not copied.

    Raises:
      RuntimeError: from torch, if keys are missing or unexpected.
    """
    with torch.device("meta"):
        model = build(name, "cn-clip")
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def with_counters(name: str, family: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the state with the unused counters of a model's batch norms."""
    counters = [key for key in shapes(name, family) if key.endswith("num_batches_tracked")]
    return {key: torch.tensor(0) for key in counters} | state


def _cn_clip_config(name: str) -> dict[str, Any]:
    """Returns the sizes from the files that cn_clip's own `create_model` reads."""
    folder = Path(cn_clip.clip.__file__).parent / "model_configs"
    config: dict[str, Any] = {}
    for part in name.split("@"):
        config |= json.loads((folder / f"{part}.json").read_text())
    if isinstance(config["vision_layers"], str):  # a list in a string
        config["vision_layers"] = json.loads(config["vision_layers"])
    return config
