"""Random inputs and variables for the tests of the towers, and comparisons with tolerances."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import torch

from tests.models.torch_weights import Weights


def ragged_ids(
    lengths: list[int], vocab_size: int, pad_id: int, *, width: int | None = None, seed: int = 0
) -> np.ndarray:
    """Returns random token ids without padding ids, each row padded on the right to the longest or to `width`."""
    draw = np.random.default_rng(seed)
    ids = np.full((len(lengths), width or max(lengths)), pad_id, np.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = draw.integers(3, vocab_size - 1, length)
    return ids


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Returns normalised images, (count, size, size, 3), with different mean colours: noise alone averages out."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(count, size, size, 3)) + 2 * draw.normal(size=(count, 1, 1, 3))).astype(np.float32)


def random_variables(module: nn.Module, *inputs: Any, seed: int = 0) -> Any:
    """Returns variables of the right shapes, drawn by numpy, because an initialiser would have to be compiled."""
    draw = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        values = draw.normal(size=leaf.shape)
        if name in ("kernel", "mean") or name.endswith("embedding"):
            inputs_of = leaf.shape[:-1] if leaf.ndim == 4 else leaf.shape[-2:-1]  # a convolution, or a stacked matrix
            fan_in = math.prod(inputs_of) if name == "kernel" else 4
            values = values * fan_in**-0.5
        else:
            values = (1.0 if name in ("scale", "var") else 0.0) + 0.3 * np.tanh(values)
        return values.astype(np.float32)

    shapes = jax.eval_shape(lambda *inputs: module.init(jax.random.key(0), *inputs), *inputs)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def run(model: nn.Module, variables: Any, *inputs: Any, method: str = "__call__", **options: Any) -> Any:
    """Runs `model.apply`, compiled once for each model, method, shape and set of options."""
    rngs = options.pop("rngs", None)
    return _compiled(model, method, **options)(variables, rngs, *inputs)


@functools.cache
def _compiled(model: nn.Module, method: str, **options: Any) -> Callable[..., Any]:
    return jax.jit(
        lambda variables, rngs, *inputs: model.apply(variables, *inputs, method=method, rngs=rngs, **options)
    )


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Converts ids to int64 and images to channels first, for PyTorch."""
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy() if array.ndim == 4 else array.astype(np.int64))


def unit(rows: Any) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def assert_same_rows(ours: Any, theirs: torch.Tensor, atol: float = 5e-6) -> None:
    """Checks that L2-normalised rows agree and are not all equal, which would prove nothing."""
    difference = np.abs(unit(ours) - unit(theirs.detach().numpy()))
    assert difference.max() < atol, f"rows differ by {difference.max():.1e}"
    rows = unit(ours).reshape(-1, np.shape(ours)[-1])
    assert np.abs(rows - rows[0]).max() > 0.01


def assert_same_values(ours: Any, theirs: torch.Tensor, rtol: float = 5e-6) -> None:
    """Checks that values agree; `rtol` is relative to the largest."""
    theirs_np = theirs.detach().numpy()
    difference = np.abs(np.asarray(ours) - theirs_np).max() / np.abs(theirs_np).max()
    assert difference < rtol, f"values differ by {difference:.1e} of the largest"


def assert_same_tree(weights: Weights, params: Any, shapes: Any) -> None:
    """Checks that copied weights have the model's structure and shapes, and that all were used."""
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    assert not weights.unread()
