"""Reference models in PyTorch, with which conversions are compared: the makers' own code on the checkpoint's tensors.

One tower runs at a time. The other stays on the meta device and takes no memory. Weights are not copied.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from jclip.conversion.checkpoint import Checkpoint
from jclip.conversion.hf.config import hf_config, hf_encoder_config
from jclip.conversion.parity import peers
from jclip.conversion.parity.memory import release
from jclip.conversion.towers import format_of
from jclip.errors import JclipError
from jclip.io.tensors import Lazy
from jclip.models.build import ModelConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.plain import shown

Tower = Literal["image", "text"]


@dataclass(frozen=True)
class Reference:
    """PyTorch model without weights, and where its towers are.

    Attributes:
      title: Package, version and class.
      model: Torch module on the meta device.
      keys: Prefixes of each tower's keys.
      layers: For each tower, the name of the module of each layer, by our path; "{i}" means all layers.
      encode: For each tower, the function from a tensor of inputs to embeddings, not L2-normalised.
      sequence_first: Towers whose states may be (l, b, d) instead of (b, l, d), as in cn_clip's ViT.
    """

    title: str
    model: Any
    keys: Mapping[Tower, tuple[str, ...]]
    layers: Mapping[Tower, Mapping[str, str]]
    encode: Mapping[Tower, Callable[[Any], Any]]
    sequence_first: frozenset[Tower] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Observed:
    """Outputs of a tower in float32: the states after each layer, and the embeddings (b, e)."""

    layers: dict[str, np.ndarray]
    embeddings: np.ndarray


def observe(source: Checkpoint, reference: Reference, tower: Tower, inputs: np.ndarray) -> Observed:
    """Runs one tower of a reference in float32, on images (b, h, w, 3) or ids (b, l).

    Raises JclipError if the checkpoint's configuration does not fit its tensors, or the makers' code refuses it.
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
                f"{source.config_name} describes another model than the tensors: {name} should have shape {shape}, but "
                f"is {found}. Use the configuration that belongs to these weights"
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
    # Free these weights before the next tower is loaded.
    model.to_empty(device="meta")
    size = sum(value.nbytes for value in weights.values())
    del weights
    release(size)
    return Observed(states, embeddings)


def build(source: Checkpoint, config: ModelConfig) -> Reference:
    """Builds the reference model of a checkpoint's family without weights.

    Raises ImportError if a package that it needs is not installed, and JclipError if the makers' code refuses the
    checkpoint's configuration.
    """
    import torch

    peers.make_importable()
    with _their_code(source), torch.device("meta"):
        reference = _BUILDERS[source.family.name](source, config)
    reference.model.eval()
    return reference


@contextmanager
def _their_code(source: Checkpoint) -> Iterator[None]:
    """Turns exceptions of the makers' code into JclipError, because a configuration may contain anything."""
    try:
        yield
    except (ImportError, JclipError, MemoryError):
        raise
    except Exception as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise JclipError(
            f"{source.config_name} is refused by {source.family.title}'s own code ({reason}): use the configuration "
            "that belongs to these weights"
        ) from None


def _hf_dual(name: str, text_encoder: str) -> Callable[[Checkpoint, Any], Reference]:
    """Returns the function that builds transformers' class {name}Model, whose text tower has this encoder."""

    def build_hf(source: Checkpoint, config: DualEncoderConfig) -> Reference:
        import transformers

        said = _said(source, config)
        make, configure = getattr(transformers, f"{name}Model"), getattr(transformers, f"{name}Config")
        model = make(configure(**said, attn_implementation="eager"))
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
                "text": {"text/layers/{i}": _spelt_in(model, f"{text_encoder}.layer.{{i}}")},
            },
            encode={"image": lambda pixels: _features(model.get_image_features(pixels)), "text": encode_text},
        )

    return build_hf


def _cn_clip(source: Checkpoint, config: DualEncoderConfig) -> Reference:
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


def _open_clip(source: Checkpoint, config: DualEncoderConfig) -> Reference:
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


def _hf_encoder(name: str, model_type: str) -> Callable[[Checkpoint, Any], Reference]:
    """Returns the function that builds transformers' class {name}Model, a text encoder."""

    def build_encoder(source: Checkpoint, config: Any) -> Reference:
        import transformers

        said = source.config or hf_encoder_config(config, model_type)
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


_BUILDERS: Mapping[str, Callable[[Checkpoint, Any], Reference]] = {
    "altclip": _hf_dual("AltCLIP", "text_model.roberta.encoder"),
    "chinese-clip": _hf_dual("ChineseCLIP", "text_model.encoder"),
    "clip": _hf_dual("CLIP", "text_model.encoder"),
    "cn-clip": _cn_clip,
    "openai-clip": _open_clip,
    "open-clip": _open_clip,
    "bert": _hf_encoder("Bert", "bert"),
    "xlm-r": _hf_encoder("XLMRoberta", "xlm-roberta"),
}


def _said(source: Checkpoint, config: DualEncoderConfig) -> dict[str, Any]:
    """Returns the checkpoint's own config.json if it is for the reference's class, else ours."""
    ours = hf_config(config)
    if source.config.get("model_type") != ours["model_type"]:
        return ours
    # If config.json names no activation, the assumed one, or the user's, is used for both models.
    parts = {
        part: {"hidden_act": ours[part]["hidden_act"], **(source.config.get(part) or {})}
        for part in ("text_config", "vision_config")
    }
    return {**source.config, **parts}


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


def _in_memory(key: str, tensor: Lazy, wanted: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields a tensor of the checkpoint under its names in the model; nothing if the model does not use it."""
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
        if sequence_first and state.ndim == 3:
            state = state.swapaxes(0, 1)
        states[path] = state.transpose(0, 2, 3, 1) if state.ndim == 4 else state

    return hook


def _fill_buffers(model: Any) -> None:
    """Fills the buffers that no checkpoint holds and that are empty on the meta device."""
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
            continue  # a buffer of the other tower, or a counter; using it would raise
        parent._buffers[last] = value


def _tensor(inputs: np.ndarray) -> Any:
    import torch

    if inputs.ndim == 4:
        return torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
    return torch.from_numpy(inputs.astype(np.int64))
