"""The state that training carries from step to step, and how it begins."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jclip import rules
from jclip.bundle import load_bundle, open_bundle
from jclip.errors import JclipError
from jclip.models.build import init_variables
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.optimizer import carry_slots
from jclip.parallel.processes import everywhere
from jclip.parallel.sharding import place_whole
from jclip.stages import merge, split
from jclip.train.layout import Layout, is_stacked, joined

InitSlots = Callable[[dict[str, Any]], optax.OptState]
"""The trainable parameters -> the optimizer's state."""


class TrainState(NamedTuple):
    """Everything that a checkpoint holds.

    Attributes:
      trainable: parameters that the stage trains, nested, as its `Layout` holds them.
      frozen: the others: never differentiated, no optimizer slots.
      stats: batch-norm statistics; empty for models without.
      slots: the optimizer's state over `trainable`.
    """

    trainable: dict[str, Any]
    frozen: dict[str, Any]
    stats: dict[str, Any]
    slots: optax.OptState


def starting_variables(
    config: DualEncoderConfig, starts_from: tuple[tuple[str, str], ...], key: jax.Array, shardings: dict[str, Any]
) -> dict[str, Any]:
    """Variables at the start of a run: from bundles where `starts_from` names one, freshly initialised elsewhere.

    They are created in their places on the mesh, as `shardings` (nested like the variables) says.

    Raises:
      RuleError: a rule that matches nothing, or a parameter without a rule.
      JclipError: a bundle that lacks a parameter, or holds it in another shape.
    """
    variables = dict(jax.jit(lambda key: init_variables(config, key), out_shardings=shardings)(key))
    places = rules.paths_of(shardings["params"])
    params = rules.paths_of(variables["params"])
    sources = rules.match(starts_from, list(params), what="starts_from")
    folders = [folder for folder in dict.fromkeys(sources.values()) if folder]
    bundles = everywhere(lambda: {folder: load_bundle(Path(folder)) for folder in folders})
    for path, folder in sources.items():
        if folder:
            taken = _take(rules.paths_of(bundles[folder].params), path, params[path], folder)
            params[path] = place_whole(taken, places[path])
    variables["params"] = rules.tree_from_paths(params)
    image_source = next(folder for path, folder in sources.items() if path.startswith("image/"))
    if image_source and isinstance(config.image, ResNetConfig):
        variables["batch_stats"] = place_whole(bundles[image_source].stats, shardings["batch_stats"])
    return variables


def begin_stage(params: dict[str, Any], stats: dict[str, Any], layout: Layout, init_slots: InitSlots) -> TrainState:
    """The state at the first step of a stage, with fresh optimizer slots, from the whole parameters.

    Only what the stage holds in parts or in another dtype is copied.
    """
    trainable, frozen = split(layout.held(params), layout.trains)
    return TrainState(trainable, frozen, stats, init_slots(trainable))


def next_stage(state: TrainState, layout: Layout, init_slots: InitSlots, carried: frozenset[str]) -> TrainState:
    """The state at the first step of the stage after `state`'s: parameters go on, slots by rule."""
    begun = begin_stage(whole_params(state), state.stats, layout, init_slots)
    return begun._replace(slots=carry_slots(begun.slots, state.slots, carried))


def whole_params(state: TrainState) -> dict[str, Any]:
    """The model's parameters, its stacks in one piece."""
    return joined(merge(state.trainable, state.frozen))


def placed(state: TrainState, shardings: TrainState) -> TrainState:
    """The state where `shardings` says; what lies there already is not copied."""

    def place(leaf: jax.Array, at: jax.sharding.Sharding) -> jax.Array:
        return leaf if leaf.sharding.is_equivalent_to(at, leaf.ndim) else jax.jit(lambda x: x, out_shardings=at)(leaf)

    return jax.tree.map(place, state, shardings)


def unrounded(params: dict[str, Any], layout: Layout, folders: Iterable[str | Path]) -> dict[str, Any]:
    """Host parameters with what a stage kept in bfloat16 as it was before.

    So a bundle holds the frozen tower's own values, not those that were kept to save memory. They are looked for in the
    bundles from which they may have come, and believed if they round to what the stage kept; what is not found stays.

    Args:
      params: nested, whole.
      layout: of the stage.
      folders: bundles; one that is not there any more is passed over.
    """
    leaves = rules.paths_of(params)
    missing = {path: count for path, leaf in leaves.items() if (count := layout.rounded_layers(path, leaf))}
    for folder in dict.fromkeys(folders) if missing else ():
        try:
            there = rules.paths_of(open_bundle(folder).params)
        except JclipError:
            continue
        for path in missing.keys() & there.keys():
            if there[path].shape == leaves[path].shape:
                leaves[path] = _unrounded(leaves[path], there[path].read(), missing[path], is_stacked(path))
    return rules.tree_from_paths(leaves)


def _unrounded(kept: np.ndarray, source: np.ndarray, count: int, stacked: bool) -> np.ndarray:
    part = slice(count) if stacked else ...
    exact = source[part].astype(np.float32)
    if not np.array_equal(exact.astype(jnp.bfloat16), kept[part].astype(jnp.bfloat16)):
        return kept
    whole = kept.astype(np.float32)
    whole[part] = exact
    return whole


def _take(params: dict[str, Any], path: str, like: Any, folder: str) -> Any:
    if path not in params:
        raise JclipError(f"{folder} has no parameter {path}: start it from elsewhere, or from ''")
    leaf = params[path]
    if np.shape(leaf) != np.shape(like):
        raise JclipError(f"{folder}: {path} has shape {np.shape(leaf)}, but this model needs {np.shape(like)}")
    return np.asarray(leaf, like.dtype)
