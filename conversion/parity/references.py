"""The PyTorch models that conversions are compared with: others' code, run on the checkpoint's own tensors.

One tower at a time: the other stays without memory ("meta"), and the weights are the arrays that were read, not copies.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from jclip.conversion.hf import hf_config
from jclip.conversion.memory import release
from jclip.conversion.parity import peers
from jclip.conversion.source import Source
from jclip.errors import JclipError
from jclip.io.tensors import Lazy, shown
from jclip.models.bert import BertConfig
from jclip.models.build import ModelConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig

Tower = Literal["image", "text"]


@dataclass(frozen=True)
class Reference:
    """A PyTorch model without weights, and where its towers are.

    Attributes:
      title: package, version and class.
      model: a torch module on the meta device.
      keys: of each tower, the beginnings of its keys.
      layers: of each tower, {our path of a layer: its module}; "{i}" stands for every layer.
      encode: of each tower, what maps a tensor of inputs to embeddings that are not normalised.
      sequence_first: the towers whose layers have states (l, b, d), not (b, l, d): cn_clip's ViT.
    """

    title: str
    model: Any
    keys: Mapping[Tower, tuple[str, ...]]
    layers: Mapping[Tower, Mapping[str, str]]
    encode: Mapping[Tower, Callable[[Any], Any]]
    sequence_first: frozenset[Tower] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Observed:
    """What a tower computed: the states after each layer, and the embeddings (b, e), float32."""

    layers: dict[str, np.ndarray]
    embeddings: np.ndarray


def observe(source: Source, reference: Reference, tower: Tower, inputs: np.ndarray) -> Observed:
    """Runs one tower of the reference at float32.

    Args:
      source: the checkpoint.
      reference: from `build`.
      tower: which.
      inputs: images (b, h, w, 3) or ids (b, l).

    Raises:
      JclipError: the checkpoint's configuration describes another model than its tensors, or fails.
    """
    import torch

    model, keys = reference.model, reference.keys[tower]
    wanted = {
        key: tuple(tensor.shape)
        for key, tensor in model.state_dict().items()
        if key.startswith(keys) and not key.endswith("num_batches_tracked")
    }
    weights = {
        name: torch.from_numpy(value)
        for key, tensor in source.tensors.items()
        if key.startswith(keys)
        for name, value in _in_memory(key, tensor, wanted)
    }
    for name, shape in wanted.items():
        found = weights[name].shape if name in weights else "missing"
        if found != shape:
            raise JclipError(
                f"{source.said_in} describes another model than the tensors: {name} would have shape {shape}, and is "
                f"{found}; take the one that belongs to these weights"
            )
    model.load_state_dict(weights, strict=False, assign=True)
    _fill_buffers(model)
    states: dict[str, np.ndarray] = {}
    hooks = [
        model.get_submodule(module).register_forward_hook(_keep(states, path, tower in reference.sequence_first))
        for path, module in _each_layer(model, reference.layers[tower])
    ]
    with _their_code(source), torch.inference_mode():
        embeddings = reference.encode[tower](_tensor(inputs)).float().numpy().copy()
    for hook in hooks:
        hook.remove()
    # The weights go before the next tower's come.
    model.to_empty(device="meta")
    del weights
    release()
    return Observed(states, embeddings)


def build(source: Source, config: ModelConfig) -> Reference:
    """The reference of a checkpoint's family, without weights.

    Raises:
      ImportError: a package that it needs is not installed.
      JclipError: the checkpoint's configuration is none that the reference takes.
    """
    import torch

    peers.make_importable()
    make = {
        "altclip": _altclip,
        "chinese-clip": _chinese_clip,
        "clip": _clip,
        "cn-clip": _cn_clip,
        "openai-clip": _open_clip,
        "open-clip": _open_clip,
        "bert": _bert,
        "xlm-r": _xlm_r,
    }[source.family.name]
    with _their_code(source), torch.device("meta"):
        reference = make(source, config)
    reference.model.eval()
    return reference


@contextmanager
def _their_code(source: Source) -> Iterator[None]:
    """What others' code raises is no defect of ours: a configuration may say anything."""
    try:
        yield
    except (ImportError, JclipError, MemoryError):
        raise
    except Exception as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise JclipError(
            f"{source.said_in} is of no use to {source.family.title}'s own code ({reason}): take the one that belongs "
            "to these weights"
        ) from None


def _altclip(source: Source, config: Any) -> Reference:
    import transformers

    said = _said(source, "altclip", config)
    model = transformers.AltCLIPModel(transformers.AltCLIPConfig(**said, attn_implementation="eager"))
    return _hf_dual(model, "text_model.roberta.encoder")


def _chinese_clip(source: Source, config: Any) -> Reference:
    import transformers

    said = _said(source, "chinese_clip", config)
    model = transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(**said, attn_implementation="eager"))
    return _hf_dual(model, "text_model.encoder")


def _clip(source: Source, config: Any) -> Reference:
    import transformers

    said = _said(source, "clip", config)
    model = transformers.CLIPModel(transformers.CLIPConfig(**said, attn_implementation="eager"))
    return _hf_dual(model, "text_model.encoder")


def _hf_dual(model: Any, text_encoder: str) -> Reference:
    pad_id = getattr(model.config.text_config, "pad_token_id", None)
    masked = not hasattr(model.text_model, "final_layer_norm")  # CLIP's own text tower is causal and takes no mask

    def encode_text(ids: Any) -> Any:
        mask = {"attention_mask": (ids != pad_id).long()} if masked else {}
        return _features(model.get_text_features(input_ids=ids, **mask))

    return Reference(
        _title(model),
        model,
        keys={"image": ("vision_model.", "visual_projection."), "text": ("text_model.", "text_projection.")},
        layers={
            "image": {"image/layers/{i}": "vision_model.encoder.layers.{i}"},
            "text": {"text/layers/{i}": _spelt_in(model, f"{text_encoder}.layer.{{i}}")},
        },
        encode={"image": lambda pixels: _features(model.get_image_features(pixels)), "text": encode_text},
    )


def _cn_clip(source: Source, config: DualEncoderConfig) -> Reference:
    from cn_clip.clip.model import CLIP

    image, text = config.image, config.text
    assert isinstance(text, BertConfig)
    resnet = isinstance(image, ResNetConfig)
    model = CLIP(
        embed_dim=config.embed_dim,
        image_resolution=image.image_size,
        vision_layers=image.layers,
        vision_width=image.width,
        vision_patch_size=None if isinstance(image, ResNetConfig) else image.patch_size,
        vision_head_width=32 * image.width // image.heads if resnet else image.width // image.heads,
        vocab_size=text.vocab_size,
        text_attention_probs_dropout_prob=text.dropout,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=text.dropout,
        text_hidden_size=text.width,
        text_initializer_range=0.02,
        text_intermediate_size=text.intermediate,
        text_max_position_embeddings=text.max_positions,
        text_num_attention_heads=text.heads,
        text_num_hidden_layers=text.layers,
        text_type_vocab_size=text.type_vocab_size,
    )
    return Reference(
        f"cn-clip {version('cn-clip')} CLIP",
        model,
        keys={"image": ("visual.",), "text": ("bert.", "text_projection")},
        layers={"image": _openai_layers(image), "text": {"text/layers/{i}": "bert.encoder.layer.{i}"}},
        encode={"image": model.encode_image, "text": model.encode_text},
        sequence_first=frozenset() if resnet else frozenset({"image"}),
    )


def _open_clip(source: Source, config: DualEncoderConfig) -> Reference:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    image, text = config.image, config.text
    assert isinstance(text, ClipTextConfig)
    if isinstance(image, ResNetConfig):
        vision = CLIPVisionCfg(layers=image.layers, width=image.width, image_size=image.image_size)
    else:
        vision = CLIPVisionCfg(
            layers=image.layers,
            width=image.width,
            head_width=image.width // image.heads,
            mlp_ratio=image.mlp_ratio,
            patch_size=image.patch_size,
            image_size=image.image_size,
        )
    words = CLIPTextCfg(text.context_length, text.vocab_size, width=text.width, heads=text.heads, layers=text.layers)
    model = CLIP(config.embed_dim, vision, words, quick_gelu=text.activation == "quick_gelu")
    return Reference(
        f"open-clip-torch {version('open-clip-torch')} CLIP",
        model,
        keys={
            "image": ("visual.",),
            "text": ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection"),
        },
        layers={
            "image": _openai_layers(image),
            "text": {"text/layers/{i}": "transformer.resblocks.{i}"},
        },
        encode={"image": model.encode_image, "text": model.encode_text},
    )


def _openai_layers(image: VitConfig | ResNetConfig) -> dict[str, str]:
    if isinstance(image, VitConfig):
        return {"image/layers/{i}": "visual.transformer.resblocks.{i}"}
    return {
        f"image/stage_{stage}_block_{block + 1}": f"visual.layer{stage}.{block}"
        for stage, blocks in enumerate(image.layers, 1)
        for block in range(blocks)
    }


def _bert(source: Source, config: Any) -> Reference:
    import transformers

    said = source.config or hf_config.encoder(config, "bert")
    model = transformers.BertModel(
        transformers.BertConfig(**said, attn_implementation="eager"), add_pooling_layer=False
    )
    return _hf_encoder(model, config)


def _xlm_r(source: Source, config: Any) -> Reference:
    import transformers

    said = source.config or hf_config.encoder(config, "xlm-roberta")
    model = transformers.XLMRobertaModel(
        transformers.XLMRobertaConfig(**said, attn_implementation="eager"), add_pooling_layer=False
    )
    return _hf_encoder(model, config)


def _hf_encoder(model: Any, config: Any) -> Reference:
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


def _said(source: Source, kind: str, config: DualEncoderConfig) -> dict[str, Any]:
    """The checkpoint's own config.json, or ours in its words where it has none that the class understands."""
    ours = hf_config.dual(config)
    if source.config.get("model_type") != kind:
        return ours
    # Where its config.json names no activation, the one that was assumed, or that the user named, holds for both.
    parts = {
        part: {"hidden_act": ours[part]["hidden_act"], **(source.config.get(part) or {})}
        for part in ("text_config", "vision_config")
    }
    return {**source.config, **parts}


def _features(output: Any) -> Any:
    """transformers 5 wraps the embeddings, transformers 4 does not."""
    return getattr(output, "pooler_output", output)


def _title(model: Any) -> str:
    return f"transformers {version('transformers')} {type(model).__name__}"


def _spelt_in(model: Any, module: str) -> str:
    """A module's name in this version of transformers: "layer" became "layers" in 5."""
    try:
        model.get_submodule(module.replace("{i}", "0"))
    except AttributeError:
        return module.replace(".layer.", ".layers.")
    return module


def _in_memory(key: str, tensor: Lazy, wanted: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """A tensor of the checkpoint under the names that the model has for it; none where it has no use for it."""
    names = [key, key.replace("encoder.layer.", "encoder.layers.")]
    if ".attention.self.Wqkv." in key:  # cn_clip under flash attention
        names = [key.replace("Wqkv", part) for part in ("query", "key", "value")]
    elif ".attention.self.out_proj." in key:
        names = [key.replace("self.out_proj", "output.dense")]
    found = [name for name in dict.fromkeys(names) if name in wanted]
    if found:
        value = tensor.read().astype(np.float32, copy=False)
        yield from zip(found, np.split(value, len(found)), strict=True)


def _each_layer(model: Any, patterns: Mapping[str, str]) -> list[tuple[str, str]]:
    found = []
    for path, module in patterns.items():
        if "{i}" not in module:
            found.append((path, module))
            continue
        for index in range(len(model.get_submodule(module.removesuffix(".{i}")))):
            found.append((path.replace("{i}", str(index)), module.replace("{i}", str(index))))
    return found


def _keep(states: dict[str, np.ndarray], path: str, sequence_first: bool) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        state = (output[0] if isinstance(output, tuple) else output).float().numpy().copy()
        if sequence_first:
            state = state.swapaxes(0, 1)
        states[path] = state.transpose(0, 2, 3, 1) if state.ndim == 4 else state

    return hook


def _fill_buffers(model: Any) -> None:
    """Buffers that no checkpoint holds, which the meta device left empty."""
    import torch

    for name, buffer in list(model.named_buffers()):
        if not buffer.is_meta:
            continue
        parent = model.get_submodule(name.rpartition(".")[0])
        last, shape = name.rpartition(".")[2], buffer.shape
        if last == "position_ids":
            value = torch.arange(shape[-1]).expand(shape).clone()
        elif last == "token_type_ids":
            value = torch.zeros(shape, dtype=torch.long)
        elif last == "attn_mask":
            value = torch.full(shape, float("-inf")).triu(1)
        else:
            continue  # of the other tower, or a counter: running it would fail, not lie
        parent._buffers[last] = value


def _tensor(inputs: np.ndarray) -> Any:
    import torch

    if inputs.ndim == 4:
        return torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
    return torch.from_numpy(inputs.astype(np.int64))
