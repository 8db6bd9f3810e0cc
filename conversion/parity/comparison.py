"""A converted model beside the PyTorch model that it came from: the same inputs through both, layer by layer.

Axes: b batch, l tokens, d width, h height, w width of a picture, c channels, e embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jclip import rules
from jclip.bundle import split_statistics
from jclip.conversion.memory import release
from jclip.conversion.parity import references
from jclip.conversion.parity.references import Observed, Tower
from jclip.conversion.source import Source
from jclip.errors import JclipError
from jclip.io.tensors import Lazy
from jclip.models.bert import PostNormLayer
from jclip.models.build import ModelConfig, build_model
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import Bottleneck
from jclip.models.transformer import PreNormLayer

EMBEDDINGS_WITHIN = 2e-5
"""The largest difference allowed between L2-normalised embeddings at float32."""
LOGITS_WITHIN = 1e-4
"""The largest difference allowed between logits, relative to the largest of them."""

_PICTURES, _TEXTS, _LONGEST = 2, 4, 40
_CLIP_TOKENS = "text/token_embedding"


@dataclass(frozen=True)
class Comparison:
    """How far a converted model is from its PyTorch model, both at float32 on the same random inputs.

    Attributes:
      reference: package, version and class.
      layers: (name, largest absolute difference, the same relative to the largest value) for each layer.
      embeddings: tower -> largest absolute difference between L2-normalised embeddings.
      logits: largest difference between logits relative to the largest; None for a tower alone.
    """

    reference: str
    layers: tuple[tuple[str, float, float], ...]
    embeddings: dict[str, float]
    logits: float | None

    @property
    def within(self) -> bool:
        """Whether the differences are those of float32 arithmetic."""
        # Each by itself, for NaN is not the largest of anything.
        near = all(difference <= EMBEDDINGS_WITHIN for difference in self.embeddings.values())
        return near and (self.logits is None or self.logits <= LOGITS_WITHIN)


def compare(source: Source, config: ModelConfig, tensors: Mapping[str, Lazy]) -> Comparison:
    """Runs both, one tower at a time, so that no more than a tower's weights are in memory.

    Args:
      source: the checkpoint.
      config: of the model, at the checkpoint's own image size.
      tensors: path -> parameter, statistics under "batch_stats/". A tower of which there is none is left out.

    Raises:
      ImportError: a package that the reference needs is not installed.
    """
    reference = references.build(source, config)
    layers: list[tuple[str, float, float]] = []
    ours: dict[str, np.ndarray] = {}
    theirs: dict[str, np.ndarray] = {}
    embeddings: dict[str, float] = {}
    for tower in reference.encode:
        if not any(path.startswith(f"{tower}/") for path in tensors):
            continue
        inputs = _pictures(config) if tower == "image" else _ids(config)
        expected = references.observe(source, reference, tower, inputs)
        found = _observe(*_abridged(config, tensors, tower, inputs))
        real = _real_places(config, tower, inputs)
        for name, state in expected.layers.items():
            layers.append((name, *_differences(found.layers[name], state, real)))
        ours[tower], theirs[tower] = _unit(found.embeddings), _unit(expected.embeddings)
        embeddings[tower] = float(np.abs(ours[tower] - theirs[tower]).max())
    logits = None
    if {"image", "text"} <= embeddings.keys():
        # Both sides with the same scale, for a product of numbers that are equal says nothing.
        a, b = ours["image"] @ ours["text"].T, theirs["image"] @ theirs["text"].T
        logits = float(np.abs(a - b).max() / np.abs(b).max())
    return Comparison(reference.title, tuple(layers), embeddings, logits)


def check(comparison: Comparison, where: str) -> None:
    """Raises JclipError when the two models are not the same."""
    if not comparison.within:
        worst = max(comparison.embeddings.values())
        first = next((name for name, _, relative in comparison.layers if relative > 1e-3), "the projection")
        raise JclipError(
            f"{where}: the converted model is not {comparison.reference}'s: embeddings differ by {worst:.1e}, first at "
            f"{first}. Nothing was written; is its config.json the right one?"
        )


def _abridged(
    config: ModelConfig, tensors: Mapping[str, Lazy], tower: Tower, inputs: np.ndarray
) -> tuple[ModelConfig, Mapping[str, Lazy], Tower, np.ndarray]:
    """The same model with no more tokens than the texts use: a third of AltCLIP's memory is embeddings of others.

    Ids keep their order, so that the end of text is still the largest, and those up to padding stay what they are.
    """
    if tower == "image":
        return config, tensors, tower, inputs
    text, path = config.text, _CLIP_TOKENS if _CLIP_TOKENS in tensors else "text/word_embedding"
    first = 1 + (text.pad_id or 0)
    used = np.unique(np.concatenate([np.arange(first), inputs.ravel()]))
    rows = np.stack([tensors[path].layer(int(token)) for token in used])
    small = replace(config, text=replace(cast(Any, text), vocab_size=len(used)))
    return small, {**tensors, path: Lazy.of(rows)}, tower, np.searchsorted(used, inputs).astype(np.int32)


def _observe(config: ModelConfig, tensors: Mapping[str, Lazy], tower: Tower, inputs: np.ndarray) -> Observed:
    params, stats = split_statistics(tensors)
    variables = {"params": _on_device(params, tower)}
    if stats and tower == "image":
        variables["batch_stats"] = _on_device(stats, tower)
    embeddings, states = _run(config, tower)(variables, inputs)
    observed = Observed(_by_layer(states["intermediates"]), np.asarray(embeddings))
    del variables, states
    release()
    return observed


def _run(config: ModelConfig, tower: Tower) -> Any:
    model = build_model(config)

    def is_layer(module: nn.Module, method: str) -> bool:
        return isinstance(module, PreNormLayer | PostNormLayer | Bottleneck) and method == "__call__"

    return jax.jit(
        lambda variables, inputs: model.apply(
            variables, inputs, method=f"encode_{tower}", capture_intermediates=is_layer, mutable=["intermediates"]
        )
    )


def _on_device(tensors: Mapping[str, Lazy], tower: Tower) -> dict[str, Any]:
    """One tower's tensors, read one by one, so that host and device do not hold the whole at once."""
    return rules.tree_from_paths(
        {
            path: jnp.asarray(tensor.read().astype(np.float32, copy=False))
            for path, tensor in tensors.items()
            if path.startswith(f"{tower}/")
        }
    )


def _by_layer(captured: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{"image/layers/3": states} from what Flax captured; stacked layers come apart."""
    found = {}
    for path, (output,) in rules.paths_of(captured).items():
        layer = path.removesuffix("/__call__")
        if isinstance(output, tuple):  # a scanned layer: its states, and nothing
            found.update({f"{layer}/{i}": np.asarray(state) for i, state in enumerate(output[0])})
        else:
            found[layer] = np.asarray(output)
    return found


def _pictures(config: ModelConfig) -> np.ndarray:
    """Random normalised pictures, each with a colour of its own: noise alone averages out."""
    assert isinstance(config, DualEncoderConfig)
    draw, side = np.random.default_rng(0), config.image.image_size
    noise = draw.normal(size=(_PICTURES, side, side, 3)) + 2 * draw.normal(size=(_PICTURES, 1, 1, 3))
    return noise.astype(np.float32)


def _ids(config: ModelConfig) -> np.ndarray:
    """Random texts of different lengths, padded to the longest."""
    text = config.text
    clip = isinstance(text, ClipTextConfig)
    # CLIP's own code takes texts of its full length only.
    longest = text.context_length if isinstance(text, ClipTextConfig) else min(text.longest, _LONGEST)
    pad_id = 0 if isinstance(text, ClipTextConfig) else text.pad_id
    draw = np.random.default_rng(0)
    ids = np.full((_TEXTS, longest), pad_id, np.int32)
    for row, length in zip(ids, np.linspace(min(3, longest), longest, _TEXTS).astype(int), strict=True):
        row[:length] = draw.integers(min(3, text.vocab_size - 2), text.vocab_size - 1, length)
        if clip:
            row[length - 1] = text.vocab_size - 1  # the end of text, which CLIP's tower finds as the largest id
    return ids


def _real_places(config: ModelConfig, tower: Tower, inputs: np.ndarray) -> np.ndarray | None:
    """(b, l), True where a token is not padding: what stands at padding matters to nobody."""
    if tower == "image" or isinstance(config.text, ClipTextConfig):
        return None
    return inputs != config.text.pad_id


def _differences(ours: np.ndarray, theirs: np.ndarray, real: np.ndarray | None) -> tuple[float, float]:
    if real is not None:
        ours, theirs = ours[real], theirs[real]
    largest = float(np.abs(ours - theirs).max())
    return largest, largest / float(np.abs(theirs).max())


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
