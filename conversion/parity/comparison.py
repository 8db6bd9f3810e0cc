"""Compares a converted model with its PyTorch model on the same inputs, layer by layer.

Axes: b batch, l tokens, d width, h height, w width of an image, c channels, e embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jclip import rules
from jclip.bundle import split_statistics
from jclip.conversion.checkpoint import Checkpoint
from jclip.conversion.parity.memory import release
from jclip.conversion.parity.observing import Observed, build, observe
from jclip.conversion.parity.references import TowerName
from jclip.conversion.towers import format_of
from jclip.errors import JclipError
from jclip.io.tensors import Lazy
from jclip.models.build import ModelConfig, build_model
from jclip.models.dual_encoder import DualEncoderConfig

EMBEDDINGS_WITHIN = 2e-5
"""Maximum absolute difference between L2-normalised embeddings in float32."""
LOGITS_WITHIN = 1e-4
"""Maximum difference between logits, relative to the largest logit."""

_PICTURES, _TEXTS, _LONGEST = 2, 4, 40


@dataclass(frozen=True)
class Differences:
    """Differences between a converted model and its PyTorch model in float32, on the same random inputs.

    Attributes:
      reference: package, version and class.
      layers: (name, largest absolute difference, largest difference relative to the largest value) of each layer.
      embeddings: largest absolute difference between L2-normalised embeddings, by tower.
      logits: largest difference between logits relative to the largest logit; None for a single tower.
    """

    reference: str
    layers: tuple[tuple[str, float, float], ...]
    embeddings: dict[str, float]
    logits: float | None

    @property
    def within(self) -> bool:
        """True if embeddings and logits are within their tolerances, which float32 rounding explains."""
        # One by one, because max() can ignore NaN.
        near = all(difference <= EMBEDDINGS_WITHIN for difference in self.embeddings.values())
        return near and (self.logits is None or self.logits <= LOGITS_WITHIN)


def compare(source: Checkpoint, config: ModelConfig, tensors: Mapping[str, Lazy]) -> Differences:
    """Compares a converted model with its PyTorch model on random inputs.

    Only one tower's weights are in memory at a time. `config` is at the checkpoint's own image size. `tensors` are the
    converted parameters by path, running statistics under "batch_stats/". A tower without parameters is left out.
    Raises ImportError if a package that the reference needs is not installed.
    """
    reference = build(source, config)
    layers: list[tuple[str, float, float]] = []
    ours: dict[str, np.ndarray] = {}
    theirs: dict[str, np.ndarray] = {}
    embeddings: dict[str, float] = {}
    for tower in reference.encode:
        if not any(path.startswith(f"{tower}/") for path in tensors):
            continue
        inputs = _pictures(config) if tower == "image" else _ids(config)
        expected = observe(source, reference, tower, inputs)
        stacks = frozenset(path.removesuffix("/{i}") for path in reference.layers[tower])
        found = _observe(*_with_used_tokens(config, tensors, tower, inputs), stacks)
        whole = tower == "image" or format_of(config.text).ends_in_largest_id
        mask = None if whole else inputs != _pad_id(config)  # states of padding are not compared
        for name, state in expected.layers.items():
            layers.append((name, *_differences(found.layers[name], state, mask)))
        ours[tower], theirs[tower] = _unit(found.embeddings), _unit(expected.embeddings)
        embeddings[tower] = float(np.abs(ours[tower] - theirs[tower]).max())
    logits = None
    if {"image", "text"} <= embeddings.keys():
        # Without the logit scale, which is a copied number.
        a, b = ours["image"] @ ours["text"].T, theirs["image"] @ theirs["text"].T
        logits = float(np.abs(a - b).max() / np.abs(b).max())
    return Differences(reference.title, tuple(layers), embeddings, logits)


def check(comparison: Differences, where: str) -> None:
    """Raises JclipError if the two models differ."""
    if not comparison.within:
        worst = max(comparison.embeddings.values())
        first = next((name for name, _, relative in comparison.layers if relative > 1e-3), "the projection")
        raise JclipError(
            f"{where}: the converted model differs from {comparison.reference}: embeddings by {worst:.1e}, first at "
            f"{first}. Check that config.json belongs to these weights"
        )


def _with_used_tokens(
    config: ModelConfig, tensors: Mapping[str, Lazy], tower: TowerName, inputs: np.ndarray
) -> tuple[ModelConfig, Mapping[str, Lazy], TowerName, np.ndarray]:
    """Reduces the token embeddings to those that the texts use; all of them are a third of AltCLIP's memory.

    Ids keep their order, so that the end of text is still the largest. Ids up to the padding's do not change.
    """
    if tower == "image":
        return config, tensors, tower, inputs
    text, path = config.text, format_of(config.text).token_embedding
    first = 1 + _pad_id(config)
    used = np.unique(np.concatenate([np.arange(first), inputs.ravel()]))
    rows = np.stack([tensors[path].layer(int(token)) for token in used])
    small = replace(config, text=replace(cast(Any, text), vocab_size=len(used)))
    return small, {**tensors, path: Lazy.of(rows)}, tower, np.searchsorted(used, inputs).astype(np.int32)


def _observe(
    config: ModelConfig, tensors: Mapping[str, Lazy], tower: TowerName, inputs: np.ndarray, stacks: frozenset[str]
) -> Observed:
    params, stats = split_statistics(tensors)
    variables = {"params": _on_device(params, tower)}
    if stats and tower == "image":
        variables["batch_stats"] = _on_device(stats, tower)
    embeddings, states = _run(config, tower, stacks)(variables, inputs)
    observed = Observed(_by_layer(states["intermediates"]), np.asarray(embeddings))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    del variables, states
    release(size)
    return observed


@lru_cache(16)  # a second conversion of the same model compiles nothing
def _run(config: ModelConfig, tower: TowerName, stacks: frozenset[str]) -> Any:
    model = build_model(config)

    def is_layer(module: nn.Module, method: str) -> bool:
        return method == "__call__" and "/".join(module.path) in stacks

    apply = partial(model.apply, method=f"encode_{tower}", capture_intermediates=is_layer, mutable=["intermediates"])
    return jax.jit(apply)


def _on_device(tensors: Mapping[str, Lazy], tower: TowerName) -> dict[str, Any]:
    """Copies one tower's tensors to the device one by one, so that host and device do not both hold all of them."""
    return rules.tree_from_paths(
        {
            path: jnp.asarray(tensor.read().astype(np.float32, copy=False))
            for path, tensor in tensors.items()
            if path.startswith(f"{tower}/")
        }
    )


def _by_layer(captured: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the states that Flax captured, by layer such as "image/layers/3"; unstacks scanned layers."""
    found = {}
    for path, (output,) in rules.paths_of(captured).items():
        layer = path.removesuffix("/__call__")
        if isinstance(output, tuple):  # scanned layers return (states, None)
            found.update({f"{layer}/{i}": np.asarray(state) for i, state in enumerate(output[0])})
        else:
            found[layer] = np.asarray(output)
    return found


def _pictures(config: ModelConfig) -> np.ndarray:
    """Returns random normalised images with different mean colours, because noise alone averages out."""
    draw, side = np.random.default_rng(0), cast(DualEncoderConfig, config).image.image_size
    noise = draw.normal(size=(_PICTURES, side, side, 3)) + 2 * draw.normal(size=(_PICTURES, 1, 1, 3))
    return noise.astype(np.float32)


def _ids(config: ModelConfig) -> np.ndarray:
    """Returns random texts of different lengths, padded to the longest."""
    text = config.text
    clip = format_of(text).ends_in_largest_id
    longest = text.longest if clip else min(text.longest, _LONGEST)  # CLIP's own code needs texts of full length
    draw = np.random.default_rng(0)
    ids = np.full((_TEXTS, longest), _pad_id(config), np.int32)
    for row, length in zip(ids, np.linspace(min(3, longest), longest, _TEXTS).astype(int), strict=True):
        row[:length] = draw.integers(min(3, text.vocab_size - 2), text.vocab_size - 1, length)
        if clip:
            row[length - 1] = text.vocab_size - 1  # end of text
    return ids


def _pad_id(config: ModelConfig) -> int:
    pad_id: int | None = getattr(config.text, "pad_id", None)
    return pad_id or 0


def _differences(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
    if mask is not None and ours.ndim == 3:  # not for pooled states
        ours, theirs = ours[mask], theirs[mask]
    largest = float(np.abs(ours - theirs).max())
    return largest, largest / float(np.abs(theirs).max())


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
