"""The kinds of contrastive loss: what each keeps of a block of logits, and the loss that it makes of that.

A block is the logits of some images (rows) against some texts (columns), with no pair's own logit in it. A tally is
what a loss needs to know of the logits of one row or column; tallies of different blocks merge, in any order.

With s a pair's own logit and, over a row or a column, n the log of the summed exponentials of its negatives and p that
of its positives, of which m is the mean, the softmax loss is log(e^p + e^n) - m = softplus(n - p) + (p - m). The second
form loses no digits where the positives are far above the negatives; for one positive it is softplus(n - s).

Axes: b global batch, r rows (images), c columns (texts), n rows or columns.
"""

from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp

MASKED = -1e30
"""The logit of what does not count. Finite, so that no maximum over it gives inf - inf."""


class Tally(Protocol):
    """What a loss keeps of the logits of each row or column: arrays (n,), or (k, n) of k tallies to be merged."""

    @property
    def largest(self) -> jax.Array:
        """The largest logit of a negative, which takes no gradient."""

    def merged(self) -> Self:
        """One tally of the k along the leading axis."""


class Kind(Protocol):
    """A loss over pairs."""

    def blank(self, size: int) -> tuple[Any, Any]:
        """The tallies of `size` rows and columns that have met nothing."""

    def look(
        self,
        logits_rc: jax.Array,
        negative_rc: jax.Array,
        positive_rc: jax.Array | None,
        known: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:
        """The tallies of the rows and of the columns of a block.

        Args:
          logits_rc: float32.
          negative_rc, positive_rc: which of them are whose; what is neither does not count. None for no positives.
          known: the tallies of the same rows and columns over all blocks. Their maxima then stand for the block's own,
            so that the tallies of all blocks simply add up; this is how a backward pass looks at them.
        """

    def loss(self, own_b: jax.Array, images: Any, texts: Any) -> jax.Array:
        """The loss, from the pairs' own logits and the tallies over all others."""


class LogSum(NamedTuple):
    """A sum of exponentials: the largest exponent, and the sum of exp(exponent - largest)."""

    largest: jax.Array
    total: jax.Array

    @classmethod
    def of(cls, logits_rc: jax.Array, counts_rc: jax.Array, axis: int, known: "LogSum | None" = None) -> Self:
        """Over an axis of the logits that count."""
        logits_rc = jnp.where(counts_rc, logits_rc, MASKED)
        largest = jax.lax.stop_gradient(logits_rc).max(axis) if known is None else known.largest
        return cls(largest, jnp.exp(logits_rc - jnp.expand_dims(largest, axis)).sum(axis))

    @classmethod
    def blank(cls, size: int) -> Self:
        """Of nothing."""
        return cls(jnp.full(size, MASKED), jnp.zeros(size))

    def merged(self) -> Self:
        """One sum of those along the leading axis."""
        largest = self.largest.max(axis=0)
        return type(self)(largest, (self.total * jnp.exp(self.largest - largest)).sum(axis=0))

    @property
    def log(self) -> jax.Array:
        """Its logarithm."""
        return self.largest + jnp.log(self.total)


class Positives(NamedTuple):
    """The positives of pairs, other than themselves: their exponentials, their sum, and how many they are."""

    exponentials: LogSum
    summed: jax.Array
    number: jax.Array

    @classmethod
    def blank(cls, size: int) -> Self:
        """None at all."""
        return cls(LogSum.blank(size), jnp.zeros(size), jnp.zeros(size))

    def merged(self) -> Self:
        """One of those along the leading axis."""
        return type(self)(self.exponentials.merged(), self.summed.sum(axis=0), self.number.sum(axis=0))


class SoftmaxTally(NamedTuple):
    """For the softmax."""

    negatives: LogSum
    positives: Positives | None

    @property
    def largest(self) -> jax.Array:
        """See `Tally`."""
        return self.negatives.largest

    def merged(self) -> Self:
        """See `Tally`."""
        return type(self)(self.negatives.merged(), self.positives and self.positives.merged())


class Softmax:
    """Cross-entropies over the batch, image to text and text to image.

    Args:
      positives: whether a pair may have positives other than itself.
    """

    def __init__(self, positives: bool) -> None:
        self._positives = positives

    def blank(self, size: int) -> tuple[SoftmaxTally, SoftmaxTally]:
        """See `Kind`."""
        tally = SoftmaxTally(LogSum.blank(size), Positives.blank(size) if self._positives else None)
        return tally, tally

    def look(
        self,
        logits_rc: jax.Array,
        negative_rc: jax.Array,
        positive_rc: jax.Array | None,
        known: tuple[SoftmaxTally, SoftmaxTally] | None = None,
    ) -> tuple[SoftmaxTally, SoftmaxTally]:
        """See `Kind`."""

        def along(axis: int, known: SoftmaxTally | None) -> SoftmaxTally:
            negatives = LogSum.of(logits_rc, negative_rc, axis, known and known.negatives)
            if positive_rc is None:
                return SoftmaxTally(negatives, None)
            seen = known and known.positives
            exponentials = LogSum.of(logits_rc, positive_rc, axis, seen and seen.exponentials)
            summed = jnp.where(positive_rc, logits_rc, 0).sum(axis)
            return SoftmaxTally(negatives, Positives(exponentials, summed, positive_rc.sum(axis, dtype=jnp.float32)))

        images, texts = known or (None, None)
        return along(1, images), along(0, texts)

    def loss(self, own_b: jax.Array, images: SoftmaxTally, texts: SoftmaxTally) -> jax.Array:
        """See `Kind`: the mean over both directions and the batch."""
        return (_cross_entropies(own_b, images).mean() + _cross_entropies(own_b, texts).mean()) / 2


def _cross_entropies(own_b: jax.Array, tally: SoftmaxTally) -> jax.Array:
    others = tally.positives
    if others is None:
        return jax.nn.softplus(tally.negatives.log - own_b)
    fixed_b = jax.lax.stop_gradient(own_b)
    own = LogSum(fixed_b, jnp.exp(own_b - fixed_b))
    positives = jax.tree.map(lambda *both: jnp.stack(both), own, others.exponentials).merged()
    mean_b = (own_b + others.summed) / (1 + others.number)
    # One positive is its own mean. Said so, because gradients of 1 and -1 would take the digits of smaller ones along.
    above_mean_b = jnp.where(others.number > 0, positives.log - mean_b, 0)
    return jax.nn.softplus(tally.negatives.log - positives.log) + above_mean_b


class SigmoidRows(NamedTuple):
    """For the sigmoid, of rows: the sum of what each pair loses."""

    largest: jax.Array
    losses: jax.Array

    def merged(self) -> Self:
        """See `Tally`."""
        return type(self)(self.largest.max(axis=0), self.losses.sum(axis=0))


class SigmoidColumns(NamedTuple):
    """For the sigmoid, of columns, whose pairs the rows have counted."""

    largest: jax.Array

    def merged(self) -> Self:
        """See `Tally`."""
        return type(self)(self.largest.max(axis=0))


class Sigmoid:
    """A binary classification of every pair of an image and a text."""

    def blank(self, size: int) -> tuple[SigmoidRows, SigmoidColumns]:
        """See `Kind`."""
        largest = jnp.full(size, MASKED)
        return SigmoidRows(largest, jnp.zeros(size)), SigmoidColumns(largest)

    def look(
        self,
        logits_rc: jax.Array,
        negative_rc: jax.Array,
        positive_rc: jax.Array | None,
        known: tuple[SigmoidRows, SigmoidColumns] | None = None,
    ) -> tuple[SigmoidRows, SigmoidColumns]:
        """See `Kind`."""
        if positive_rc is None:
            losses_rc = jnp.where(negative_rc, jax.nn.softplus(logits_rc), 0)
        else:
            signed_rc = jnp.where(positive_rc, -logits_rc, logits_rc)
            losses_rc = jnp.where(negative_rc | positive_rc, jax.nn.softplus(signed_rc), 0)
        if known is None:
            negatives_rc = jax.lax.stop_gradient(jnp.where(negative_rc, logits_rc, MASKED))
            largest_r, largest_c = negatives_rc.max(axis=1), negatives_rc.max(axis=0)
        else:
            largest_r, largest_c = (tally.largest for tally in known)
        return SigmoidRows(largest_r, losses_rc.sum(axis=1)), SigmoidColumns(largest_c)

    def loss(self, own_b: jax.Array, images: SigmoidRows, texts: SigmoidColumns) -> jax.Array:
        """See `Kind`: the sum over all pairs by the batch size."""
        return (jax.nn.softplus(-own_b) + images.losses).mean()
