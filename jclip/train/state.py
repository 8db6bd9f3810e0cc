"""The training state: its parts, its start, and its change from stage to stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jclip import rules
from jclip.bundle import load_bundle
from jclip.models.build import init_variables, shapes
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.processes import everywhere
from jclip.parallel.sharding import place_whole
from jclip.train.layout import Layout, joined, merge, split

InitSlots = Callable[[dict[str, Any]], optax.OptState]
"""Trainable parameters -> the optimizer's state."""


class TrainState(NamedTuple):
    """Training state, as a checkpoint holds it.

    Attributes:
      trainable: parameters that the stage trains, nested, as its `Layout` holds them.
      frozen: all other parameters. They are never differentiated and have no optimizer slots. While a stage's steps run
        on devices with their own memory, these are `Parked`, in the host's.
      stats: batch-norm statistics; empty for a model without batch norm.
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

    The bundles must have been checked, see `check_starting_points`.

    Args:
      config: configuration of the model.
      starts_from: see `Run.starts_from`.
      key: key of the random initialisation.
      shardings: shardings of the variables, nested like them.
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
            leaf = np.asarray(rules.paths_of(bundles[folder].params)[path], params[path].dtype)
            drawn[path] = place_whole(leaf, places[path])
    variables["params"] = rules.tree_from_paths({path: drawn[path] for path in params})
    if image_source and config.has_statistics:
        variables["batch_stats"] = place_whole(bundles[image_source].stats, shardings["batch_stats"])
    return variables


def begin_stage(params: dict[str, Any], stats: dict[str, Any], layout: Layout, init_slots: InitSlots) -> TrainState:
    """Returns the state at a stage's first step, with fresh optimizer slots. Copies only stacks that it splits."""
    trainable, frozen = split(layout.held(params), layout.trains)
    return TrainState(trainable, frozen, stats, init_slots(trainable))


def next_stage(state: TrainState, layout: Layout, init_slots: InitSlots) -> TrainState:
    """Returns the next stage's first state from the last one, with fresh optimizer slots."""
    return begin_stage(whole_params(state), state.stats, layout, init_slots)


def whole_params(state: TrainState) -> dict[str, Any]:
    """Returns all parameters, with every stack of layers joined."""
    return joined(merge(state.trainable, state.frozen))


def placed(state: TrainState, shardings: TrainState) -> TrainState:
    """Moves the state to `shardings`; arrays that have them already are not copied."""

    def place(leaf: jax.Array, at: jax.sharding.Sharding) -> jax.Array:
        return leaf if leaf.sharding.is_equivalent_to(at, leaf.ndim) else jax.jit(lambda x: x, out_shardings=at)(leaf)

    return jax.tree.map(place, state, shardings)
