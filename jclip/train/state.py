"""The training state: its parts, its start, and its change from stage to stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jclip import rules
from jclip.bundle import load_bundle
from jclip.errors import JclipError
from jclip.models.build import init_variables, shapes
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.processes import everywhere
from jclip.parallel.sharding import place_whole
from jclip.stages import merge, split
from jclip.train.layout import Layout, joined

InitSlots = Callable[[dict[str, Any]], optax.OptState]
"""Trainable parameters -> the optimizer's state."""


class TrainState(NamedTuple):
    """State of training that a checkpoint holds.

    Attributes:
      trainable: parameters that the stage trains, nested, as its `Layout` holds them.
      frozen: the others: never differentiated, without optimizer slots.
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
    """Creates the variables of a new run on the mesh: from the bundles that `starts_from` names, or at random.

    Args:
      config: the towers.
      starts_from: see `Run.starts_from`.
      key: of the random initialisation.
      shardings: nested like the variables.

    Raises:
      RuleError: a rule that matches nothing, or a parameter without a rule.
      JclipError: a bundle that lacks a parameter, or holds it in another shape.
    """
    params = rules.paths_of(shapes(config)["params"])
    sources = rules.match(starts_from, list(params), what="starts_from")
    folders = [folder for folder in dict.fromkeys(sources.values()) if folder]
    bundles = everywhere(lambda: {folder: load_bundle(Path(folder)) for folder in folders})
    image_source = next(folder for path, folder in sources.items() if path.startswith("image/"))
    places = rules.paths_of(shardings["params"])
    fresh = {path: places[path] for path, folder in sources.items() if not folder}
    stats = {} if image_source else {name: shardings[name] for name in shardings if name != "params"}

    def initialise(key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        variables = init_variables(config, key)
        drawn = rules.paths_of(variables["params"])
        return {path: drawn[path] for path in fresh}, {name: variables[name] for name in stats}

    # Only what the bundles lack is computed.
    drawn, variables = jax.jit(initialise, out_shardings=(fresh, stats))(key) if fresh or stats else ({}, {})
    for path, folder in sources.items():
        if folder:
            taken = _take(rules.paths_of(bundles[folder].params), path, params[path], folder)
            drawn[path] = place_whole(taken, places[path])
    variables["params"] = rules.tree_from_paths({path: drawn[path] for path in params})
    if image_source and config.has_statistics:
        variables["batch_stats"] = place_whole(bundles[image_source].stats, shardings["batch_stats"])
    return variables


def begin_stage(params: dict[str, Any], stats: dict[str, Any], layout: Layout, init_slots: InitSlots) -> TrainState:
    """Returns the state at the first step of a stage, with fresh optimizer slots, from the whole parameters.

    Only stacks that the stage cuts are copied.
    """
    trainable, frozen = split(layout.held(params), layout.trains)
    return TrainState(trainable, frozen, stats, init_slots(trainable))


def next_stage(state: TrainState, layout: Layout, init_slots: InitSlots) -> TrainState:
    """Returns the state at the first step of the stage after `state`'s, with fresh optimizer slots."""
    return begin_stage(whole_params(state), state.stats, layout, init_slots)


def whole_params(state: TrainState) -> dict[str, Any]:
    """Returns the model's parameters, with its stacks in one piece."""
    return joined(merge(state.trainable, state.frozen))


def placed(state: TrainState, shardings: TrainState) -> TrainState:
    """Moves the state to `shardings`; arrays that have them already are not copied."""

    def place(leaf: jax.Array, at: jax.sharding.Sharding) -> jax.Array:
        return leaf if leaf.sharding.is_equivalent_to(at, leaf.ndim) else jax.jit(lambda x: x, out_shardings=at)(leaf)

    return jax.tree.map(place, state, shardings)


def _take(params: dict[str, Any], path: str, like: Any, folder: str) -> Any:
    if path not in params:
        raise JclipError(f"{folder} has no parameter {path}: start it from elsewhere, or from ''")
    leaf = params[path]
    if np.shape(leaf) != np.shape(like):
        raise JclipError(f"{folder}: {path} has shape {np.shape(leaf)}, but this model needs {np.shape(like)}")
    return np.asarray(leaf, like.dtype)
