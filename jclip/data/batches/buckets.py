"""Length buckets: sorts the examples of several steps by length, so that most batches are short."""

from collections.abc import Callable, Sequence

import numpy as np

Buckets = Callable[[Sequence[int]], np.ndarray]
"""Returns the bucket (n,) of each example, ascending with its length."""


class BucketedSteps:
    """Example indices of each step: in order, or sorted by length bucket within windows of several steps.

    A window holds the same examples with and without sorting. Within a bucket they keep their order, and the sorted
    batches are shuffled, so that lengths do not rise from step to step. With n buckets, at most n - 1 batches of a
    window have mixed lengths.

    Args:
      batch_size: over all processes.
      window: number of steps that are sorted together; 1 for no sorting.
      seed: numbers that decide the order of a window's batches.
      buckets: returns the bucket (n,) of each example, ascending with its length.
    """

    def __init__(self, batch_size: int, window: int, seed: Sequence[int], buckets: Buckets):
        self._batch_size, self._window, self._seed, self._buckets = batch_size, window, tuple(seed), buckets
        self._known: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> list[int]:
        """Returns the global example indices of a step, in the order of the batch's rows."""
        if self._window == 1:
            return list(range(step * self._batch_size, (step + 1) * self._batch_size))
        window, place = divmod(step, self._window)
        known = self._known
        if window not in known:
            known = self._known = {window: self._sorted(window)}  # replaced as a whole, because several threads read it
        return [int(index) for index in known[window][place]]

    def _sorted(self, window: int) -> np.ndarray:
        """Returns the indices of a window, (steps, batch)."""
        count = self._window * self._batch_size
        indices = np.arange(window * count, (window + 1) * count)
        by_length = indices[np.argsort(self._buckets(indices.tolist()), kind="stable")]
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self._seed, window])))
        return by_length.reshape(self._window, self._batch_size)[random.permutation(self._window)]
