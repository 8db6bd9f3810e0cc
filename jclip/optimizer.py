"""The update rule of a stage as data, and the optax transformation that it means.

Order of the chain: clip by the global norm of the trained gradients, precondition, decoupled weight decay, learning
rate. Decay and learning-rate multipliers are rules over parameter paths, the same matcher as everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jclip import rules
from jclip.errors import JclipError

NO_DECAY_ON_SCALES_AND_BIASES = ((r"(.*/)?(bias|scale|logit_scale)", False), (r".*", True))
"""Weight decay on matrices and embeddings only: norms, biases and the temperature are left alone."""

MAX_LOGIT_SCALE = 4.605170185988092
"""ln 100 (Radford et al. 2021, section 2.5): the bound to which the logit scale is clamped after each update."""


@dataclass(frozen=True)
class Optimizer:
    """An update rule and its schedule.

    Attributes:
      name: "adamw" (Loshchilov & Hutter 2019), or "muon" (Jordan 2024): orthogonalised momentum for the matrices inside
        the towers' layers, AdamW for everything else. Its matrices want about ten times the rate: see `multipliers`.
      learning_rate: peak.
      warmup_steps: linear from 0; step n of the warm-up runs at (n + 1) / warmup_steps of the peak.
      schedule: after the warm-up: "cosine" or "linear" to 0 at the end of the stage, or "constant".
      beta1, beta2, eps: AdamW's.
      weight_decay: decoupled, multiplied with the learning rate.
      decays: (path regex, bool), which parameters decay.
      multipliers: (path regex, float), factors on the learning rate.
      clip_norm: bound on the global norm of the gradients; None for no clipping.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.1
    decays: tuple[tuple[str, bool], ...] = NO_DECAY_ON_SCALES_AND_BIASES
    multipliers: tuple[tuple[str, float], ...] = ((r".*", 1.0),)
    clip_norm: float | None = None


def learning_rate(spec: Optimizer, steps: int) -> Callable[[jax.Array | int], jax.Array]:
    """The learning rate at a step of the stage, as cn_clip codes it: warm-up reaches the peak at its last step."""

    def rate(step: jax.Array | int) -> jax.Array:
        done = jnp.asarray(step, jnp.float32)
        warm = (done + 1) / max(spec.warmup_steps, 1)
        progress = jnp.clip((done - spec.warmup_steps) / max(steps - spec.warmup_steps, 1), 0, 1)
        after = {
            "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)),
            "linear": 1 - progress,
            "constant": jnp.ones_like(progress),
        }[spec.schedule]
        return spec.learning_rate * jnp.where(done < spec.warmup_steps, warm, after)

    return rate


def build(
    spec: Optimizer, steps: int, all_paths: list[str], trainable: dict[str, Any], carried: frozenset[str]
) -> optax.GradientTransformation:
    """The optax transformation for the trainable subtree of a stage.

    Args:
      spec: the stage's optimizer.
      steps: the stage's length, for the schedule.
      all_paths: every parameter of the model: rules are checked against all of them, trained here or not.
      trainable: the trainable subtree; shapes are enough.
      carried: paths whose slots come from the stage before. They keep a step count of their own, so that Adam's bias
        correction is right for them and for the fresh ones.

    Raises:
      RuleError: a rule of `decays` or `multipliers` matches nothing, or leaves a parameter out.
      JclipError: a negative or non-finite rate.
    """
    if not 0 <= spec.learning_rate < float("inf"):
        raise JclipError(f"a learning rate of {spec.learning_rate} is not possible: give a finite number, 0 or above")
    decays = _tree(rules.match(spec.decays, all_paths, what="decays"), trainable)
    multipliers = _tree(rules.match(spec.multipliers, all_paths, what="multipliers"), trainable)
    groups = {
        path: f"{'carried' if path in carried else 'fresh'} {_kind(spec, path)}" for path in rules.paths_of(trainable)
    }
    directions = {group: _direction(spec, group.split()[1]) for group in dict.fromkeys(groups.values())}
    parts = []
    if spec.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(spec.clip_norm))
    parts.append(optax.partition(directions, rules.tree_from_paths(groups)))
    parts.append(optax.add_decayed_weights(spec.weight_decay, mask=decays))
    parts.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, multipliers)))
    parts.append(optax.scale_by_learning_rate(learning_rate(spec, steps)))
    return optax.chain(*parts)


def carry_slots(new: Any, old: Any, carried: frozenset[str]) -> Any:
    """The optimizer state `new` with the slots and counts of the carried parameters taken from `old`.

    A slot is known by its kind and its parameter ("mu", "text/layers/mlp/fc1/kernel"), whatever group held it before.
    A carried parameter that the stage before did not train has no slot there and starts fresh.
    """
    if not carried:
        return new
    before = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(old):
        before[_slot(path)] = leaf

    def take(path: Any, leaf: Any) -> Any:
        slot = _slot(path)
        mine = any(name.startswith("carried ") for name in _names(path))
        known = slot in before and jnp.shape(before[slot]) == jnp.shape(leaf)
        return before[slot] if mine and known else leaf

    return jax.tree_util.tree_map_with_path(take, new)


def clamp_logit_scale(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the logit scale, if it is among them, clamped to [0, ln 100], as Chinese-CLIP does each step."""
    if "logit_scale" not in params:
        return params
    return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}


def _kind(spec: Optimizer, path: str) -> str:
    return "muon" if spec.name == "muon" and "/layers/" in path and path.endswith("/kernel") else "adam"


def _direction(spec: Optimizer, kind: str) -> optax.GradientTransformation:
    if kind == "adam":
        return optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.eps)
    # The layers are stacked: (layers, in, out), one matrix each.
    stacked = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return optax.contrib.scale_by_muon(weight_dimension_numbers=partial(jax.tree.map, lambda _: stacked))


def _tree(values: Mapping[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    return rules.tree_from_paths({path: values[path] for path in rules.paths_of(like)})


def _names(path: Any) -> list[str]:
    return [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]


def _slot(path: Any) -> str:
    """What a leaf of an optimizer state is, without the groups in which optax wraps it: "mu/text/norm/scale"."""
    names = _names(path)
    for kind in ("mu", "nu", "count"):
        if kind in names:
            return "/".join(names[names.index(kind) :])
    return "/".join(names)
