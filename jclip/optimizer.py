"""Update rule of a stage, and its optax transformation.

Order of the chain: clipping by the global norm of the trained gradients, preconditioning, decoupled weight decay,
learning rate. Weight decay and multipliers of the learning rate are rules over parameter paths.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jclip import rules
from jclip.errors import JclipError
from jclip.models.towers import Tower
from jclip.ranges import BelowOne, Count, NotNegative, Positive, Range, check_ranges

NO_DECAY_ON_SCALES_AND_BIASES = ((r"(.*/)?(bias|scale|logit_.*)", False), (r".*", True))
"""Weight decay on matrices and embeddings, not on norms, biases and the temperature.

The trainer of transformers, with which AltCLIP was trained, does the same, except that it decays the temperature."""

CN_CLIP_DECAYS = ((r"(.*/)?bias|logit_.*|image/(?!.*shortcut_norm/).*/scale", False), (r".*", True))
"""Weight decay of Chinese-CLIP's code: on all parameters except those whose PyTorch name contains "bn", "ln", "bias" or
"logit_scale". BERT's norms ("LayerNorm.weight") and the norms of a ResNet's shortcuts ("downsample.1.weight") decay."""

MAX_LOGIT_SCALE = 4.605170185988092
"""Upper bound of the parameter logit_scale after each update: ln 100 (Radford et al. 2021, section 2.5)."""


@dataclass(frozen=True)
class Optimizer:
    """Update rule and schedule of the learning rate.

    Attributes:
      name: "adamw" (Loshchilov & Hutter 2019), or "muon" (Jordan 2024): orthogonalised momentum for the matrices inside
        the towers' layers, AdamW for everything else. The matrices need about ten times AdamW's learning rate: set
        `multipliers`.
      learning_rate: peak of the learning rate.
      warmup_steps: number of steps of linear warm-up; step n, from 0, has (n + 1) / warmup_steps of the peak.
      schedule: after the warm-up, "cosine" or "linear" to 0 at the end of the stage, or "constant".
      beta1: decay rate of AdamW's first moment.
      beta2: decay rate of AdamW's second moment.
      eps: epsilon in the denominator of AdamW's update.
      weight_decay: decoupled weight decay, multiplied by the learning rate.
      decays: (path regex, bool) rules for the parameters that decay.
      multipliers: (path regex, float) rules for factors on the learning rate.
      layer_decay: (tower regex, d) rules for layer-wise decay of the learning rate. Of a tower's L layers, the n-th
        learns at d**(L + 1 - n) of the rate. Parameters before the first layer learn at d**(L + 1), a norm after the
        last layer at d, heads and projections at 1, as in BEiT (Bao et al. 2021) and timm.
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
    layer_decay: tuple[tuple[str, Annotated[float, Range(0, 1, above=True)]], ...] = ((r".*", 1.0),)
    clip_norm: (
        Annotated[float, Range(0, math.inf, above=True, words="a number above 0, or None for no clipping")] | None
    ) = None


def learning_rate(spec: Optimizer, steps: int) -> Callable[[jax.Array | int], jax.Array]:
    """Returns the schedule: step of the stage -> learning rate. As in cn_clip, the last warm-up step has the peak."""

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
    spec: Optimizer, steps: int, leaves: Mapping[str, Any], trainable: dict[str, Any], towers: Mapping[str, Tower]
) -> optax.GradientTransformation:
    """Returns the optax transformation for the trainable subtree of a stage.

    Args:
      spec: the stage's optimizer.
      steps: length of the stage.
      leaves: {path: array or shape} of the whole model; rules are checked against all of it.
      trainable: nested arrays or shapes. A stack may hold only its last layers here.
      towers: configurations of the towers, by name.

    Raises:
      RuleError: a rule of `decays`, `multipliers` or `layer_decay` matches nothing, or a parameter has no rule.
      RangeError: a number of `spec` is outside its range.
      JclipError: a tower whose layers are not numbered has a layer decay.
    """
    check_ranges(spec)
    trained = rules.paths_of(trainable)
    decays = rules.match(spec.decays, leaves, what="decays")
    factors = _factors(spec, leaves, trained, towers)
    methods = {path: _method(spec, path, leaf, towers) for path, leaf in trained.items()}
    directions = {method: _direction(spec, method) for method in dict.fromkeys(methods.values())}
    return optax.chain(
        optax.identity() if spec.clip_norm is None else optax.clip_by_global_norm(spec.clip_norm),
        optax.partition(directions, rules.tree_from_paths(methods)),
        optax.add_decayed_weights(
            spec.weight_decay, mask=rules.tree_from_paths({path: decays[path] for path in trained})
        ),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)),
        optax.scale_by_learning_rate(learning_rate(spec, steps)),
    )


def clamp_logit_scale(params: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters with logit_scale, if present, clamped to [0, ln 100], as Chinese-CLIP does after each step."""
    if "logit_scale" not in params:
        return params
    return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}


_NEWTON_SCHULZ = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""Coefficients of Muon's three iterations on singular values: x -> a x + b x³ + c x⁵.

Singular values are first in [0.01, 1]. Each iteration maps their range as near to 1 as possible (Amsel et al. 2025,
Polar Express). After the third it is 0.73 to 1.27. Jordan's five iterations give 0.7 to 1.2, for nearly twice the
arithmetic."""


def _factors(
    spec: Optimizer, leaves: Mapping[str, Any], trainable: dict[str, Any], towers: Mapping[str, Tower]
) -> dict[str, Any]:
    """Returns the factor on the learning rate of each trained parameter; for a stack, one for each layer."""
    multipliers = rules.match(spec.multipliers, leaves, what="multipliers")
    names = sorted({path.partition("/")[0] for path in leaves if "/" in path})
    exponents: dict[str, Any] = {}
    for tower, rate in rules.match(spec.layer_decay, names, what="layer_decay").items():
        if rate != 1:
            exponents |= {path: rate**exponent for path, exponent in _exponents(tower, towers, leaves, trainable)}
    return rules.tree_from_paths({path: multipliers[path] * exponents.get(path, 1) for path in trainable})


def _exponents(
    tower: str, towers: Mapping[str, Tower], leaves: Mapping[str, Any], trainable: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yields (path, exponent of the layer decay) for the trained parameters of a tower."""
    table = towers[tower].layer_numbers if tower in towers else ()
    if not table:
        raise JclipError(f"layer_decay: the {tower} tower does not number its layers: give 1, or use `multipliers`")
    numbers = rules.match(
        rules.inside(tower, table),
        [path for path in leaves if path.startswith(f"{tower}/") and not _is_stacked(path, towers)],
        what=f"layer_decay ({tower})",
    )
    top = max(number for _, number in table)
    for path, leaf in trainable.items():
        if path in numbers:
            yield path, top - numbers[path]
        elif path.startswith(f"{tower}/"):
            # Counted from the last layer (1), because a stack may hold only the last layers.
            yield path, jnp.arange(len(leaf), 0, -1, dtype=jnp.float32).reshape(-1, *(1 for _ in leaf.shape[1:]))


def _is_stacked(path: str, towers: Mapping[str, Tower]) -> bool:
    tower, _, inside = path.partition("/")
    return tower in towers and towers[tower].is_stacked(inside)


def _method(spec: Optimizer, path: str, leaf: Any, towers: Mapping[str, Tower]) -> str:
    is_matrix = path.endswith("/kernel") and leaf.ndim > 2 and _is_stacked(path, towers)
    return "muon" if spec.name == "muon" and is_matrix else "adam"


def _direction(spec: Optimizer, method: str) -> optax.GradientTransformation:
    if method == "adam":
        return optax.scale_by_adam(spec.beta1, spec.beta2, spec.eps)
    return optax.contrib.scale_by_muon(_NEWTON_SCHULZ, weight_dimension_numbers=partial(jax.tree.map, _matrices))


def _matrices(leaf: Any) -> optax.contrib.MuonDimensionNumbers:
    """Returns the axes of a stack's matrices, (layers, in, out), or convolutions, (layers, height, width, in, out)."""
    return optax.contrib.MuonDimensionNumbers(reduction_axis=tuple(range(1, leaf.ndim - 1)), output_axis=-1)
