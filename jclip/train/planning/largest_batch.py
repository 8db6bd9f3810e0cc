"""Searches for the largest batch that fits, with few compilations."""

from collections.abc import Callable
from itertools import takewhile
from typing import NamedTuple

_TRIES = 5
_CLOSE = 0.03
"""Share of the memory; a batch that leaves less is not improved, nor one that is as close to one that is too large."""
_BACK = 0.05
"""Share of the memory by which a try aims lower after each guess that was too large."""


class Batches(NamedTuple):
    """Batches that were compiled, around the largest one.

    Attributes:
      fits: largest of them that fits; None if none does.
      too_large: smallest of them that does not fit; None if all do.
    """

    fits: int | None
    too_large: int | None


def largest_batch(need: Callable[[int], int | None], batch: int, needed: int, step: int, memory: int) -> Batches:
    """Returns the largest batch that was found to fit, and the smallest one that was found not to.

    The memory of a step is nearly linear in the batch, so each try is where the line through two known batches meets
    the limit: through those on both sides of it, or else the nearest two. What a compiler says of a batch that it
    refuses is less exact, and it may refuse batches below that line. So the next try aims lower.

    Args:
      need: batch -> bytes of one device; None if the compiler fails, which ends the search. Each call compiles.
      batch, needed: a batch, and its bytes.
      step: batches must be multiples of this.
      memory: limit in bytes.
    """
    known = {batch: needed}
    # The second point: half of a batch that does not fit, twice one that does.
    second = step * max((batch // 2 if needed > memory else 2 * batch) // step, 1)
    for _ in range(_TRIES):
        if second in known or (found := need(second)) is None:
            break
        known[second] = found
        second = _next(known, step, memory)
    return _around(known, memory)


def _around(known: dict[int, int], memory: int) -> Batches:
    return Batches(
        max((batch for batch, size in known.items() if size <= memory), default=None),
        min((batch for batch, size in known.items() if size > memory), default=None),
    )


def _next(known: dict[int, int], step: int, memory: int) -> int:
    """Returns the next batch to try; a known one if there is nothing to gain. `known` is in the order of the tries."""
    fits, over = _around(known, memory)
    if fits and (known[fits] > (1 - _CLOSE) * memory or (over and over - fits <= max(step, _CLOSE * over))):
        return fits
    guessed = list(known.values())[2:]
    missed = sum(1 for _ in takewhile(lambda size: size > memory, reversed(guessed)))
    target = memory * (1 - _BACK * missed)
    nearest = sorted(known, key=lambda batch: abs(known[batch] - memory))[:2]
    low, high = (fits, over) if fits and over else sorted(nearest)
    slope = (known[high] - known[low]) / (high - low)
    if slope <= 0 and fits:
        return fits
    guess = low + (target - known[low]) / slope if slope > 0 else 0.0
    if over is not None:  # between what fits and what does not
        least = fits or 0
        if guess <= least:
            guess = (least + over) / 2
        guess = min(max(guess, least + step), over - step)
    return step * max(int(guess // step), 1)
