"""The update rule of a stage as data, and the optax transformation that it means.

Order of the chain: clip by the global norm of the trained gradients, precondition, decoupled weight decay, learning
rate. Decay and learning-rate multipliers are rules over parameter paths, the same matcher as everywhere.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jclip import rules
from jclip.errors import JclipError
from jclip.ranges import BelowOne, Count, NotNegative, Positive, Range

NO_DECAY_ON_SCALES_AND_BIASES = ((r"(.*/)?(bias|scale|logit_.*)", False), (r".*", True))
"""Weight decay on matrices and embeddings only: norms, biases and the temperature are left alone.

The trainer of transformers, with which AltCLIP was trained, does the same but for the temperature, which it decays."""

CN_CLIP_DECAYS = ((r"(.*/)?bias|logit_.*|image/(?!.*shortcut_norm/).*/scale", False), (r".*", True))
"""Weight decay as Chinese-CLIP's code has it: on all but what its PyTorch name tells by "bn", "ln", "bias" or
"logit_scale". So BERT's norms ("LayerNorm.weight") decay, and of a ResNet the norms beside the shortcut
("downsample.1.weight")."""

MAX_LOGIT_SCALE = 4.605170185988092
"""ln 100 (Radford et al. 2021, section 2.5): the bound to which the logit scale is clamped after each update."""


_Bound = Annotated[float, Range(0, math.inf, above=True, words="a number above 0, or None for no clipping")]


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
      layer_decay: (tower regex, d): layer-wise decay of the learning rate. Of a tower's L layers, counted from 0, layer
        i learns at d**(L - i) of the rate; what comes before the layers at d**(L + 1), the norm after them at d as the
        last layer, heads and projections at 1. So do BEiT (Bao et al. 2021) and timm's `param_groups_layer_decay`.
      clip_norm: bound on the global norm of the gradients; None for no clipping.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: NotNegative = 1e-3
    warmup_steps: Count = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.98
    eps: Positive = 1e-6
    weight_decay: NotNegative = 0.1
    decays: tuple[tuple[str, bool], ...] = NO_DECAY_ON_SCALES_AND_BIASES
    multipliers: tuple[tuple[str, NotNegative], ...] = ((r".*", 1.0),)
    layer_decay: tuple[tuple[str, float], ...] = ((r".*", 1.0),)
    clip_norm: (
        Annotated[float, Range(0, math.inf, above=True, words="a number above 0, or None for no clipping")] | None
    ) = None


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
    spec: Optimizer, steps: int, leaves: Mapping[str, Any], trainable: dict[str, Any]
) -> optax.GradientTransformation:
    """The optax transformation for the trainable subtree of a stage.

    Args:
      spec: the stage's optimizer.
      steps: the stage's length, for the schedule.
      leaves: {path: array or shape} of the whole model: rules are checked against all of it, trained here or not.
      trainable: the trainable subtree; shapes are enough. A stack may be shorter here: its last layers.

    Raises:
      RuleError: a rule of `decays`, `multipliers` or `layer_decay` matches nothing, or leaves something out.
      JclipError: a negative or non-finite rate, or a layer decay that is not possible.
    """
    if not 0 <= spec.learning_rate < float("inf"):
        raise JclipError(f"a learning rate of {spec.learning_rate} is not possible: give a finite number, 0 or above")
    decays = _tree(rules.match(spec.decays, leaves, what="decays"), trainable)
    factors = _factors(spec, leaves, rules.paths_of(trainable))
    kinds = {path: _kind(spec, path) for path in rules.paths_of(trainable)}
    parts = []
    if spec.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(spec.clip_norm))
    directions = {kind: _direction(spec, kind) for kind in dict.fromkeys(kinds.values())}
    parts.append(optax.partition(directions, rules.tree_from_paths(kinds)))
    parts.append(optax.add_decayed_weights(spec.weight_decay, mask=decays))
    parts.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)))
    parts.append(optax.scale_by_learning_rate(learning_rate(spec, steps)))
    return optax.chain(*parts)


def is_stacked(path: str) -> bool:
    """Whether a parameter of the whole model, or an optimizer's slot of one, has a leading axis of layers."""
    return "/layers/" in path


def carry_slots(new: Any, old: Any, carried: frozenset[str]) -> Any:
    """The optimizer state `new` with the slots and counts of the carried parameters taken from `old`.

    A slot is known by its kind and its parameter ("mu", "text/layers/mlp/fc1/kernel"). What the stage before did not
    train has no slot there and starts fresh: a parameter, or of a stack the layers below its last ones. Adam counts the
    steps of each parameter and layer apart, so that its bias correction is right for the carried and for the fresh.
    Muon has one count, which goes on if anything of Muon's does: it only weighs the newest gradient against the others.
    """
    if not carried:
        return new
    old_leaves = jax.tree_util.tree_leaves_with_path(old)
    before = {_slot(path): leaf for path, leaf in old_leaves}
    goes_on = {f"{kind}/{path}" for kind in ("count", "mu", "nu") for path in carried}
    if any(_MUON in _names(path) and _slot(path) in goes_on for path, _ in old_leaves):
        goes_on.add(_MUON_COUNT)

    def take(path: Any, leaf: Any) -> Any:
        slot = _slot(path)
        if slot not in goes_on or slot not in before:
            return leaf
        found = before[slot]
        if not is_stacked(slot):
            return found if jnp.shape(found) == jnp.shape(leaf) else leaf
        # Both hold the last layers of one stack.
        both = min(len(leaf), len(found))
        return jnp.concatenate([leaf[: len(leaf) - both], found[len(found) - both :]])

    return jax.tree_util.tree_map_with_path(take, new)


def clamp_logit_scale(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the logit scale, if it is among them, clamped to [0, ln 100], as Chinese-CLIP does each step."""
    if "logit_scale" not in params:
        return params
    return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}


class _Adam(NamedTuple):
    """Adam's slots: steps, of each parameter and of each layer of a stack, and the two moments."""

    count: Any
    mu: Any
    nu: Any


def _adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """Kingma & Ba 2015, algorithm 1, with a step count for each parameter and layer; `optax.scale_by_adam` has one."""

    def init(params: Any) -> _Adam:
        def count(path: Any, leaf: jax.Array) -> jax.Array:
            axes = (leaf.shape[0], *(1 for _ in leaf.shape[1:])) if is_stacked("/".join(_names(path))) else ()
            return jnp.zeros(axes, jnp.int32)

        def zeros() -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)

        return _Adam(jax.tree_util.tree_map_with_path(count, params), zeros(), zeros())

    def update(gradients: Any, slots: _Adam, params: Any = None) -> tuple[Any, _Adam]:
        del params
        count = jax.tree.map(optax.safe_increment, slots.count)
        mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, slots.mu, gradients)
        nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * jnp.square(g), slots.nu, gradients)

        def direction(n: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            return m / (1 - beta1**n) / (jnp.sqrt(v / (1 - beta2**n)) + eps)

        return jax.tree.map(direction, count, mu, nu), _Adam(count, mu, nu)

    return optax.GradientTransformation(init, update)


_MUON, _MUON_COUNT = "muon", "muon's count"
_BEFORE_LAYERS = re.compile(r"(image|text)/([^/]*embedding.*|patch/.*|pre_norm/.*)")
_AFTER_LAYERS = re.compile(r"(image|text)/(post_norm|final_norm)/.*")


def _factors(spec: Optimizer, leaves: Mapping[str, Any], trainable: dict[str, Any]) -> dict[str, Any]:
    """On the learning rate of each trained parameter: a number, or of a stack one a layer, with the stack's axes."""
    multipliers = rules.match(spec.multipliers, leaves, what="multipliers")
    towers = sorted({path.partition("/")[0] for path in leaves if "/" in path})
    decay = rules.match(spec.layer_decay, towers, what="layer_decay")
    depths = {path.partition("/")[0]: leaf.shape[0] for path, leaf in leaves.items() if is_stacked(path)}
    for tower, rate in decay.items():
        if not 0 < rate <= 1:
            raise JclipError(f"layer_decay of {rate} is not possible ({tower}): give more than 0, and 1 at most")
        if rate != 1 and tower not in depths:
            raise JclipError(f"layer_decay: the {tower} tower has no layers to decay over: give 1, or `multipliers`")

    def factor(path: str, leaf: Any) -> Any:
        tower = path.partition("/")[0]
        if decay.get(tower, 1.0) == 1:
            return multipliers[path]
        exponents: Any = 0
        if is_stacked(path):
            down = jnp.arange(len(leaf), 0, -1, dtype=jnp.float32)  # to 1, of the last layer, however many train
            exponents = down.reshape(-1, *(1 for _ in leaf.shape[1:]))
        elif _BEFORE_LAYERS.fullmatch(path):
            exponents = depths[tower] + 1
        elif _AFTER_LAYERS.fullmatch(path):
            exponents = 1
        return multipliers[path] * decay[tower] ** exponents

    return rules.tree_from_paths({path: factor(path, leaf) for path, leaf in trainable.items()})


def _kind(spec: Optimizer, path: str) -> str:
    return _MUON if spec.name == "muon" and is_stacked(path) and path.endswith("/kernel") else "adam"


def _direction(spec: Optimizer, kind: str) -> optax.GradientTransformation:
    if kind == "adam":
        return _adam(spec.beta1, spec.beta2, spec.eps)
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
        if kind in names[:-1]:
            return "/".join(names[names.index(kind) :])
    return _MUON_COUNT if _MUON in names and names[-1] == "count" else "/".join(names)
