"""Searches for the largest batch that fits, with few compilations."""

from collections.abc import Callable

_TRIES = 4
_CLOSE = 0.03  # share of the memory; a batch that leaves less is not improved


def largest_batch(need: Callable[[int], int], batch: int, needed: int, step: int, memory: int) -> int | None:
    """Returns a batch whose memory was measured and fits, close to the largest; None if no batch was found that fits.

    The memory of a step is nearly linear in the batch, so each try is where the line through two known batches meets
    the limit: through those on both sides of it, or else the nearest two.

    Args:
      need: batch -> bytes of one device. Each call compiles.
      batch, needed: a batch, and its bytes.
      step: batches must be multiples of this.
      memory: limit in bytes.
    """
    known = {batch: needed}
    # The second point: half of a batch that does not fit, twice one that does.
    second = step * max((batch // 2 if needed > memory else 2 * batch) // step, 1)
    for _ in range(_TRIES):
        if second in known:
            break
        known[second] = need(second)
        second = _next(known, step, memory)
    return max((batch for batch, size in known.items() if size <= memory), default=None)


def _next(known: dict[int, int], step: int, memory: int) -> int:
    """Returns the next batch to try; a known one if there is nothing to gain."""
    fitting = max((batch for batch, size in known.items() if size <= memory), default=0)
    over = min((batch for batch, size in known.items() if size > memory), default=None)
    if fitting and (known[fitting] > (1 - _CLOSE) * memory or over == fitting + step):
        return fitting
    nearest = sorted(known, key=lambda batch: abs(known[batch] - memory))[:2]
    low, high = (fitting, over) if fitting and over else sorted(nearest)
    slope = (known[high] - known[low]) / (high - low)
    if slope <= 0:
        return fitting or low
    guess = step * int((low + (memory - known[low]) / slope) // step)
    if over is not None:  # between what fits and what does not
        guess = min(max(guess, fitting + step), over - step)
    return max(guess, step)
