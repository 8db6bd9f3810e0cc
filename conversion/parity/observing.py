"""Runs a reference model in PyTorch on a checkpoint's tensors.

One tower runs at a time. The other stays on the meta device and takes no memory. Weights are not copied.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jclip.conversion.checkpoint import Checkpoint
from jclip.conversion.parity import peers
from jclip.conversion.parity.memory import release
from jclip.conversion.parity.references import Reference, TowerName
from jclip.errors import JclipError
from jclip.io.tensors import Lazy
from jclip.models.build import ModelConfig
from jclip.plain import shown


@dataclass(frozen=True)
class Observed:
    """Outputs of a tower in float32: the states after each layer, and the embeddings (b, e)."""

    layers: dict[str, np.ndarray]
    embeddings: np.ndarray


def observe(source: Checkpoint, reference: Reference, tower: TowerName, inputs: np.ndarray) -> Observed:
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
        reference = source.family.reference(source.config, config)
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
        setattr(parent, last, value)


def _tensor(inputs: np.ndarray) -> Any:
    import torch

    if inputs.ndim == 4:
        return torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
    return torch.from_numpy(inputs.astype(np.int64))
