"""Reference models in PyTorch, with which conversions are compared: the makers' own classes, without weights.

A family names the function that builds its reference, see `Family.reference`. Nothing is imported before it is called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from jclip.conversion.hf.config import HfModel, hf_config
from jclip.conversion.towers import format_of
from jclip.conversion.towers.bert import bert_to_hf
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig

TowerName = Literal["image", "text"]


@dataclass(frozen=True)
class Reference:
    """PyTorch model without weights, and where its towers are.

    Attributes:
      title: package, version and class.
      model: torch module on the meta device.
      keys: prefixes of each tower's keys.
      layers: for each tower, the name of the module of each layer, by our path; "{i}" means all layers.
      encode: for each tower, the function from a tensor of inputs to embeddings, not L2-normalised.
      sequence_first: towers whose states may be (l, b, d) instead of (b, l, d), as in cn_clip's ViT.
    """

    title: str
    model: Any
    keys: Mapping[TowerName, tuple[str, ...]]
    layers: Mapping[TowerName, Mapping[str, str]]
    encode: Mapping[TowerName, Callable[[Any], Any]]
    sequence_first: frozenset[TowerName] = field(default_factory=frozenset)


Builder = Callable[[Mapping[str, Any], Any], Reference]
"""Builds a reference, given the contents of the checkpoint's configuration file and the model's configuration."""


def hf_dual(hf: HfModel) -> Builder:
    """Returns the function that builds a dual encoder of transformers."""

    def build_hf(said: Mapping[str, Any], config: DualEncoderConfig) -> Reference:
        import transformers

        make, configure = getattr(transformers, f"{hf.name}Model"), getattr(transformers, f"{hf.name}Config")
        model = make(configure(**_own(said, hf_config(hf, config)), attn_implementation="eager"))
        pad_id = getattr(model.config.text_config, "pad_token_id", None)
        masked = not format_of(config.text).ends_in_largest_id  # CLIP's own text tower is causal and takes no mask

        def encode_text(ids: Any) -> Any:
            mask = {"attention_mask": (ids != pad_id).long()} if masked else {}
            return _features(model.get_text_features(input_ids=ids, **mask))

        return Reference(
            _title(model),
            model,
            keys={"image": ("vision_model.", "visual_projection."), "text": ("text_model.", "text_projection.")},
            layers={
                "image": {"image/layers/{i}": "vision_model.encoder.layers.{i}"},
                "text": {"text/layers/{i}": _spelt_in(model, f"{hf.layers}.layer.{{i}}")},
            },
            encode={"image": lambda pixels: _features(model.get_image_features(pixels)), "text": encode_text},
        )

    return build_hf


def cn_clip(said: Mapping[str, Any], config: DualEncoderConfig) -> Reference:
    """Builds cn_clip's CLIP."""
    from cn_clip.clip.model import CLIP

    image, text = format_of(config.image), format_of(config.text)
    arguments = {**_fields(image.cn_clip, config.image), **_fields(text.cn_clip, config.text)}
    model = CLIP(embed_dim=config.embed_dim, **arguments)
    return Reference(
        f"cn-clip {version('cn-clip')} CLIP",
        model,
        keys={"image": ("visual.",), "text": ("bert.", "text_projection")},
        layers={
            "image": _fields(image.openai_layers, config.image),
            "text": {"text/layers/{i}": "bert.encoder.layer.{i}"},
        },
        encode={"image": model.encode_image, "text": model.encode_text},
        sequence_first=frozenset({"image"}),
    )


def open_clip(said: Mapping[str, Any], config: DualEncoderConfig) -> Reference:
    """Builds open_clip's CLIP, which is OpenAI's too."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    image, text = format_of(config.image), format_of(config.text)
    vision = CLIPVisionCfg(**_fields(image.open_clip, config.image))
    words = CLIPTextCfg(**_fields(text.open_clip, config.text))
    model = CLIP(config.embed_dim, vision, words, quick_gelu=getattr(config.text, "activation", "") == "quick_gelu")
    return Reference(
        f"open-clip-torch {version('open-clip-torch')} CLIP",
        model,
        keys={
            "image": ("visual.",),
            "text": ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection"),
        },
        layers={
            "image": _fields(image.openai_layers, config.image),
            "text": {"text/layers/{i}": "transformer.resblocks.{i}"},
        },
        encode={"image": model.encode_image, "text": model.encode_text},
    )


def _fields(describe: Callable[[Any], Mapping[str, Any]] | None, tower: Any) -> Mapping[str, Any]:
    if describe is None:
        raise JclipError(f"this family has no {format_of(tower).title}: convert another checkpoint")
    return describe(tower)


def hf_encoder(name: str, model_type: str) -> Builder:
    """Returns the function that builds transformers' class {name}Model, a text encoder."""

    def build_encoder(said: Mapping[str, Any], config: Any) -> Reference:
        import transformers

        said = said or {"model_type": model_type, **bert_to_hf(config.text)}
        make, configure = getattr(transformers, f"{name}Model"), getattr(transformers, f"{name}Config")
        model = make(configure(**said, attn_implementation="eager"), add_pooling_layer=False)

        def encode_text(ids: Any) -> Any:
            mask = (ids != config.text.pad_id).long()
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
            if config.pooling == "cls":
                return states[:, 0]
            return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

        return Reference(
            _title(model),
            model,
            keys={"text": ("embeddings.", "encoder.")},
            layers={"text": {"text/layers/{i}": _spelt_in(model, "encoder.layer.{i}")}},
            encode={"text": encode_text},
        )

    return build_encoder


def _own(said: Mapping[str, Any], ours: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the checkpoint's own config.json if it is for the reference's class, else ours."""
    if said.get("model_type") != ours["model_type"]:
        return ours
    # If config.json names no activation, the assumed one, or the user's, is used for both models.
    parts = {
        part: {"hidden_act": ours[part]["hidden_act"], **(said.get(part) or {})}
        for part in ("text_config", "vision_config")
    }
    return {**said, **parts}


def _features(output: Any) -> Any:
    """Returns the embeddings, which transformers 5 wraps."""
    return getattr(output, "pooler_output", output)


def _title(model: Any) -> str:
    return f"transformers {version('transformers')} {type(model).__name__}"


def _spelt_in(model: Any, module: str) -> str:
    """Returns a module's name in the installed transformers; version 5 renamed "layer" to "layers"."""
    try:
        model.get_submodule(module.replace("{i}", "0"))
    except AttributeError:
        return module.replace(".layer.", ".layers.")
    return module
