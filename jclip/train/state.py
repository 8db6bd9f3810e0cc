"""The state that training carries from step to step, and how it begins."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jclip import rules
from jclip.bundle import load_bundle
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig, init_variables
from jclip.models.resnet import ResNetConfig
from jclip.optimizer import carry_slots
from jclip.stages import merge, split


class TrainState(NamedTuple):
    """Everything that a checkpoint holds.

    Attributes:
      trainable: parameters that the stage trains, nested.
      frozen: the others: never differentiated, no optimizer slots.
      stats: batch-norm statistics; empty for models without.
      slots: the optimizer's state over `trainable`.
    """

    trainable: dict[str, Any]
    frozen: dict[str, Any]
    stats: dict[str, Any]
    slots: optax.OptState


def starting_variables(
    config: DualEncoderConfig, starts_from: tuple[tuple[str, str], ...], key: jax.Array
) -> dict[str, Any]:
    """Variables at the start of a run: from bundles where `starts_from` names one, freshly initialised elsewhere.

    Raises:
      RuleError: a rule that matches nothing, or a parameter without a rule.
      JclipError: a bundle that lacks a parameter, or holds it in another shape.
    """
    variables = dict(init_variables(config, key))
    params = rules.paths_of(variables["params"])
    sources = rules.match(starts_from, list(params), what="starts_from")
    bundles = {folder: load_bundle(Path(folder)) for folder in dict.fromkeys(sources.values()) if folder}
    for path, folder in sources.items():
        if folder:
            params[path] = _take(rules.paths_of(bundles[folder].params), path, params[path], folder)
    variables["params"] = rules.tree_from_paths(params)
    image_source = next(folder for path, folder in sources.items() if path.startswith("image/"))
    if image_source and isinstance(config.image, ResNetConfig):
        variables["batch_stats"] = bundles[image_source].stats
    return variables


def begin_stage(
    params: dict[str, Any], stats: dict[str, Any], chosen: frozenset[str], optimizer: optax.GradientTransformation
) -> TrainState:
    """The state at the first step of a stage, with fresh optimizer slots."""
    trainable, frozen = split(params, chosen)
    return TrainState(trainable, frozen, stats, optimizer.init(trainable))


def next_stage(
    state: TrainState, chosen: frozenset[str], optimizer: optax.GradientTransformation, carried: frozenset[str]
) -> TrainState:
    """The state at the first step of the stage after `state`'s: parameters go on, slots by rule."""
    begun = begin_stage(merge(state.trainable, state.frozen), state.stats, chosen, optimizer)
    return begun._replace(slots=carry_slots(begun.slots, state.slots, carried))


def _take(params: dict[str, Any], path: str, like: Any, folder: str) -> Any:
    if path not in params:
        raise JclipError(f"{folder} has no parameter {path}: start it from elsewhere, or from ''")
    leaf = params[path]
    if jnp.shape(leaf) != jnp.shape(like):
        raise JclipError(f"{folder}: {path} has shape {jnp.shape(leaf)}, but this model needs {jnp.shape(like)}")
    return jnp.asarray(leaf, like.dtype)
