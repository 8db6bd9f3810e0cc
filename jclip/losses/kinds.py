"""Softmax and sigmoid losses over blocks of logits.

A block holds the logits of some images (rows) with some texts (columns), except those of the pairs themselves. A loss
reduces each block to statistics of its rows and columns. Statistics of different blocks are merged, in any order. The
loss is computed from the merged statistics and the pairs' own logits.

Numerics of the softmax: let s be the logit of a pair. Over its row or column, let n be the log-sum-exp of the
negatives, p that of the positives, and m the mean of the positives. The loss is log(e^p + e^n) - m, computed as
softplus(n - p) + (p - m), which keeps its digits if the positives are far above the negatives. With one positive it is
softplus(n - s).

Axes: b global batch, r rows (images), c columns (texts), n rows or columns.
"""

from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp

MASKED = -1e30
"""Logit of entries that do not count. It is finite, because inf - inf would be NaN."""


class Stats(Protocol):
    """Statistics of each row or column: arrays (n,), or (k, n) for k statistics to be merged."""

    @property
    def largest(self) -> jax.Array:
        """Largest logit of a negative, without gradient."""

    def merged(self) -> Self:
        """Merges the k statistics along the leading axis."""


class PairwiseLoss(Protocol):
    """Loss over all pairs of an image and a text."""

    def empty(self, size: int) -> tuple[Any, Any]:
        """Returns the statistics of `size` rows and columns before the first block."""

    def reduce(
        self,
        logits_rc: jax.Array,
        negative_rc: jax.Array,
        positive_rc: jax.Array | None,
        total: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:
        """Returns the statistics of the rows and of the columns of a block.

        Args:
          logits_rc: float32.
          negative_rc, positive_rc: masks; an entry in neither does not count. None for no positives.
          total: in the backward pass, statistics of the same rows and columns over all blocks. Their maxima replace
            the block's own, so that the statistics of all blocks can be added without rescaling.
        """

    def loss(self, own_b: jax.Array, images: Any, texts: Any) -> jax.Array:
        """Returns the loss, from the pairs' own logits and the statistics of all others."""


class LogSumExp(NamedTuple):
    """Sum of exponentials, as the largest exponent and the sum of exp(exponent - largest)."""

    largest: jax.Array
    scaled_sum: jax.Array

    @classmethod
    def along(cls, axis: int, logits_rc: jax.Array, mask_rc: jax.Array, total: "LogSumExp | None" = None) -> Self:
        """Returns the sums of the masked logits along an axis, relative to the maxima of `total` if given."""
        logits_rc = jnp.where(mask_rc, logits_rc, MASKED)
        largest = jax.lax.stop_gradient(logits_rc).max(axis) if total is None else total.largest
        return cls(largest, jnp.exp(logits_rc - jnp.expand_dims(largest, axis)).sum(axis))

    @classmethod
    def empty(cls, size: int) -> Self:
        """Returns `size` empty sums."""
        return cls(jnp.full(size, MASKED), jnp.zeros(size))

    def merged(self) -> Self:
        """See `Stats`."""
        largest = self.largest.max(axis=0)
        return type(self)(largest, (self.scaled_sum * jnp.exp(self.largest - largest)).sum(axis=0))

    @property
    def log(self) -> jax.Array:
        """Logarithm of the sum."""
        return self.largest + jnp.log(self.scaled_sum)


class PositiveStats(NamedTuple):
    """Statistics of the positives other than the pair itself: log-sum-exp, sum and number of their logits."""

    logsumexp: LogSumExp
    sum: jax.Array
    number: jax.Array

    @classmethod
    def empty(cls, size: int) -> Self:
        """Returns the statistics of `size` rows without positives."""
        return cls(LogSumExp.empty(size), jnp.zeros(size), jnp.zeros(size))

    def merged(self) -> Self:
        """See `Stats`."""
        return type(self)(self.logsumexp.merged(), self.sum.sum(axis=0), self.number.sum(axis=0))


class SoftmaxStats(NamedTuple):
    """Statistics of the softmax loss."""

    negatives: LogSumExp
    positives: PositiveStats | None

    @property
    def largest(self) -> jax.Array:
        """See `Stats`."""
        return self.negatives.largest

    def merged(self) -> Self:
        """See `Stats`."""
        return type(self)(self.negatives.merged(), self.positives and self.positives.merged())


class SoftmaxLoss:
    """Mean of the image-to-text and text-to-image cross-entropies.

    Args:
      positives: True if a pair may have positives other than itself.
    """

    def __init__(self, positives: bool) -> None:
        self._positives = positives

    def empty(self, size: int) -> tuple[SoftmaxStats, SoftmaxStats]:
        """See `PairwiseLoss`."""
        stats = SoftmaxStats(LogSumExp.empty(size), PositiveStats.empty(size) if self._positives else None)
        return stats, stats

    def reduce(
        self,
        logits_rc: jax.Array,
        negative_rc: jax.Array,
        positive_rc: jax.Array | None,
        total: tuple[SoftmaxStats, SoftmaxStats] | None = None,
    ) -> tuple[SoftmaxStats, SoftmaxStats]:
        """See `PairwiseLoss`."""

        def along(axis: int, total: SoftmaxStats | None) -> SoftmaxStats:
            negatives = LogSumExp.along(axis, logits_rc, negative_rc, total and total.negatives)
            if positive_rc is None:
                return SoftmaxStats(negatives, None)
            all_positives = total and total.positives
            logsumexp = LogSumExp.along(axis, logits_rc, positive_rc, all_positives and all_positives.logsumexp)
            sums, numbers = jnp.where(positive_rc, logits_rc, 0).sum(axis), positive_rc.sum(axis, dtype=jnp.float32)
            return SoftmaxStats(negatives, PositiveStats(logsumexp, sums, numbers))

        images, texts = total or (None, None)
        return along(1, images), along(0, texts)

    def loss(self, own_b: jax.Array, images: SoftmaxStats, texts: SoftmaxStats) -> jax.Array:
        """See `PairwiseLoss`: the mean over both directions and the batch."""
        return (_cross_entropies(own_b, images).mean() + _cross_entropies(own_b, texts).mean()) / 2


def _cross_entropies(own_b: jax.Array, stats: SoftmaxStats) -> jax.Array:
    others = stats.positives
    if others is None:
        return jax.nn.softplus(stats.negatives.log - own_b)
    fixed_b = jax.lax.stop_gradient(own_b)
    own = LogSumExp(fixed_b, jnp.exp(own_b - fixed_b))
    positives = jax.tree.map(lambda *both: jnp.stack(both), own, others.logsumexp).merged()
    mean_b = (own_b + others.sum) / (1 + others.number)
    # A single positive is its own mean. Without `where`, gradients of 1 and -1 would cancel and cost digits.
    above_mean_b = jnp.where(others.number > 0, positives.log - mean_b, 0)
    return jax.nn.softplus(stats.negatives.log - positives.log) + above_mean_b


class SigmoidRowStats(NamedTuple):
    """Statistics of the sigmoid loss for rows, with the summed losses of all their pairs."""

    largest: jax.Array
    losses: jax.Array

    def merged(self) -> Self:
        """See `Stats`."""
        return type(self)(self.largest.max(axis=0), self.losses.sum(axis=0))


class SigmoidColumnStats(NamedTuple):
    """Statistics of the sigmoid loss for columns. The losses of their pairs are in the rows' statistics."""

    largest: jax.Array

    def merged(self) -> Self:
        """See `Stats`."""
        return type(self)(self.largest.max(axis=0))


class SigmoidLoss:
    """Binary classification of every pair of an image and a text."""

    def empty(self, size: int) -> tuple[SigmoidRowStats, SigmoidColumnStats]:
        """See `PairwiseLoss`."""
        largest = jnp.full(size, MASKED)
        return SigmoidRowStats(largest, jnp.zeros(size)), SigmoidColumnStats(largest)

    def reduce(
        self,
        logits_rc: jax.Array,
        negative_rc: jax.Array,
        positive_rc: jax.Array | None,
        total: tuple[SigmoidRowStats, SigmoidColumnStats] | None = None,
    ) -> tuple[SigmoidRowStats, SigmoidColumnStats]:
        """See `PairwiseLoss`."""
        if positive_rc is None:
            losses_rc = jnp.where(negative_rc, jax.nn.softplus(logits_rc), 0)
        else:
            signed_rc = jnp.where(positive_rc, -logits_rc, logits_rc)
            losses_rc = jnp.where(negative_rc | positive_rc, jax.nn.softplus(signed_rc), 0)
        if total is None:
            negatives_rc = jax.lax.stop_gradient(jnp.where(negative_rc, logits_rc, MASKED))
            largest_r, largest_c = negatives_rc.max(axis=1), negatives_rc.max(axis=0)
        else:
            largest_r, largest_c = (stats.largest for stats in total)
        return SigmoidRowStats(largest_r, losses_rc.sum(axis=1)), SigmoidColumnStats(largest_c)

    def loss(self, own_b: jax.Array, images: SigmoidRowStats, texts: SigmoidColumnStats) -> jax.Array:
        """See `PairwiseLoss`: the sum over all pairs, divided by the batch size."""
        del texts
        return (jax.nn.softplus(-own_b) + images.losses).mean()
