"""Logistic regression on frozen features, with a sweep of its regularisation (Radford et al. 2021, appendix A.3).

jax computes the loss and its gradient, over all devices of a mesh; scipy's L-BFGS minimises it. Only two draws are
random, and both depend on a seed: the shots of a few-shot probe, and the images held out for validation.

Axes: n images, d features, c classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.parallel.sharding import batch_devices, local_rows, place_rows

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

ITERATIONS = 1000
_COARSE = tuple(10.0**power for power in (-6, -4, -2, 0, 2, 4, 6))
_FINEST = 1 / 8  # decades: 97 values from 1e-6 to 1e6


@dataclass(frozen=True)
class LinearProbe:
    """Linear classifier.

    Attributes:
      weights_dc, bias_c: weights and bias.
      penalty: lambda in the loss, summed cross-entropy + lambda / 2 |weights|^2.
    """

    weights_dc: Floats
    bias_c: Floats
    penalty: float

    def logits(self, features_nd: Features) -> Floats:
        """Returns (n, c) logits."""
        return features_nd @ self.weights_dc + self.bias_c


def fit(
    features_nd: Features, classes_n: Ints, classes: int, penalty: float, start: LinearProbe | None = None
) -> LinearProbe:
    """Minimises summed cross-entropy + penalty / 2 |weights|^2; the bias is not penalised.

    `classes` is the number of classes, including those without an image. The penalty is above 0. Starts from the
    parameters of `start`, or from zeros. Raises JclipError if there is no image, or features are not finite.
    """
    from scipy.optimize import minimize  # imported here because it is an extra

    if not len(features_nd) or len(features_nd) != len(classes_n):
        raise JclipError(f"{len(features_nd)} features and {len(classes_n)} classes: give one for each, at least one")
    if not np.isfinite(features_nd).all():
        raise JclipError("features that are not finite cannot be probed: the model has diverged")
    width = features_nd.shape[1]
    loss = _loss(features_nd, classes_n)
    first = np.zeros((width + 1, classes)) if start is None else np.vstack([start.weights_dc, start.bias_c])

    def objective(flat: Floats) -> tuple[float, Floats]:
        both_ec = flat.reshape(width + 1, classes)
        value, gradient_ec = loss(both_ec)
        gradient_ec[:-1] += penalty * both_ec[:-1]
        # Divided by the number of images, so that L-BFGS stops at the same relative precision for few and many.
        whole = value + penalty / 2 * float(np.square(both_ec[:-1]).sum())
        return whole / len(classes_n), gradient_ec.ravel() / len(classes_n)

    options = {"maxiter": ITERATIONS, "gtol": 1e-6, "ftol": 1e-12}
    found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    both_ec = found.x.reshape(width + 1, classes)
    return LinearProbe(both_ec[:-1], both_ec[-1], penalty)


def sweep(
    train: tuple[Features, Ints], valid: tuple[Features, Ints], classes: int
) -> tuple[LinearProbe, dict[float, float]]:
    """Finds the penalty with the best validation accuracy, and refits on both splits together.

    Tries seven penalties from 1e-6 to 1e6, then halves the step around the best down to an eighth of a decade (Radford
    et al. 2021, appendix A.3). Among equally good penalties it takes the largest.

    Returns:
      The probe, and {penalty: validation accuracy} of all penalties tried, ascending.
    """
    tried: dict[float, tuple[float, LinearProbe]] = {}

    def best_of(penalties: Sequence[float]) -> float:
        # From strong to weak regularisation, each initialised with the nearest solution.
        for penalty in sorted((one for one in penalties if one not in tried), reverse=True):
            near = min(tried, key=lambda one: abs(np.log10(one / penalty)), default=None)
            found = fit(*train, classes, penalty, tried[near][1] if near is not None else None)
            tried[penalty] = float((found.logits(valid[0]).argmax(axis=1) == valid[1]).mean()), found
        return max(tried, key=lambda one: (tried[one][0], one))

    best, step = best_of(_COARSE), 1.0
    while step >= _FINEST:
        power = round(float(np.log10(best)) * 8) / 8
        best = best_of([10.0**near for near in (power - step, power + step) if -6 <= near <= 6])
        step /= 2
    both = np.concatenate([train[0], valid[0]]), np.concatenate([train[1], valid[1]])
    final = fit(*both, classes, best, tried[best][1])
    return final, {penalty: tried[penalty][0] for penalty in sorted(tried)}


def draw_shots(classes_n: Ints, per_class: int, seed: int) -> Ints:
    """Draws `per_class` rows of each class; returns them ascending. Raises JclipError if a class has fewer rows."""
    draw = np.random.default_rng(seed)
    chosen = []
    for number in np.unique(classes_n):
        rows = np.flatnonzero(classes_n == number)
        if len(rows) < per_class:
            raise JclipError(
                f"class {number} has {len(rows)} training images, fewer than {per_class} shots: lower --shots"
            )
        chosen.append(draw.permutation(rows)[:per_class])
    return np.sort(np.concatenate(chosen))


def held_out(classes_n: Ints, seed: int = 0, share: float = 0.2) -> tuple[Ints, Ints]:
    """Returns (train, valid) rows. Holds out a share of each class, at least one image, but never its only one."""
    draw = np.random.default_rng(seed)
    valid = []
    for number in np.unique(classes_n):
        rows = draw.permutation(np.flatnonzero(classes_n == number))
        valid.append(rows[: min(len(rows) - 1, max(1, round(share * len(rows))))])
    out = np.sort(np.concatenate(valid))
    return np.setdiff1d(np.arange(len(classes_n)), out), out


def fit_probe(train: tuple[Features, Ints], valid: tuple[Features, Ints] | None, classes: int) -> LinearProbe:
    """Fits a probe. The penalty is chosen on `valid`, or without it on a held-out share of `train`.

    If each class has one image, nothing can be held out, and the penalty is 1.

    Args:
      train: (n, d) features and (n,) classes of the training images.
      valid: the same of the validation images, which the final fit includes; None without any.
      classes: number of classes.

    Raises:
      JclipError: there is no image, or features are not finite.
    """
    if valid is not None:
        return sweep(train, valid, classes)[0]
    kept, out = held_out(train[1])
    if not len(out):
        return fit(*train, classes, 1.0)
    return sweep((train[0][kept], train[1][kept]), (train[0][out], train[1][out]), classes)[0]


def _loss(features_nd: Features, classes_n: Ints) -> Callable[[Floats], tuple[float, Floats]]:
    """Returns a function from stacked weights and bias to the summed cross-entropy and its gradient."""
    mesh = jax.sharding.get_mesh()

    def placed(rows: npt.NDArray[Any]) -> jax.Array:
        if mesh.empty:
            return jnp.asarray(rows)
        # Padded with rows of zeros, which have no weight in the loss.
        filled = -(-len(rows) // batch_devices(mesh)) * batch_devices(mesh)
        rows = np.pad(rows, [(0, filled - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
        return place_rows(rows[local_rows(filled, mesh)], filled, mesh)

    # The bias is the weight of a constant feature of 1.
    ones_n = np.ones(len(features_nd), np.float32)
    x_ne = placed(np.concatenate([features_nd, ones_n[:, None]], axis=1))
    y_n, counts_n = placed(classes_n.astype(np.int32)), placed(ones_n)

    def call(weights_ec: Floats) -> tuple[float, Floats]:
        value, gradient_ec = _total_and_gradient(np.asarray(weights_ec, np.float32), x_ne, y_n, counts_n)
        return float(value), np.asarray(gradient_ec, np.float64)

    return call


@jax.jit
def _total_and_gradient(
    weights_ec: jax.Array, x_ne: jax.Array, y_n: jax.Array, counts_n: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def total(weights_ec: jax.Array) -> jax.Array:
        logits_nc = jnp.einsum("ne,ec->nc", x_ne, weights_ec, precision=jax.lax.Precision.HIGHEST)
        chosen_n = jnp.take_along_axis(logits_nc, y_n[:, None], axis=1)[:, 0]
        return jnp.sum(counts_n * (jax.nn.logsumexp(logits_nc, axis=1) - chosen_n))

    found = jax.value_and_grad(total)(weights_ec)
    if jax.sharding.get_abstract_mesh().empty:
        return found
    whole: tuple[jax.Array, jax.Array] = jax.lax.with_sharding_constraint(found, jax.sharding.PartitionSpec())
    return whole
