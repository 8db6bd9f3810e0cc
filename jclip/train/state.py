"""The state that training carries from step to step, and how it begins."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jclip import rules
from jclip.bundle import load_bundle
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
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


def init_variables(config: DualEncoderConfig, key: jax.Array) -> dict[str, Any]:
    """Freshly initialised variables: {"params": …} and, for a ResNet, {"batch_stats": …}."""
    size = config.image.image_size
    images, ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 4), jnp.int32)
    # Compiled as one: operation by operation it takes seconds.
    return dict(jax.jit(DualEncoder(config).init)(key, images, ids))


def shapes(config: DualEncoderConfig) -> dict[str, Any]:
    """The variables' shapes and dtypes, without computing any."""
    return jax.eval_shape(lambda: init_variables(config, jax.random.key(0)))


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
