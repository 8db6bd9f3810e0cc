"""Length buckets: which examples make a batch, so that most batches are short; a function of the step alone."""

from collections.abc import Callable, Sequence

import numpy as np

Lengths = Callable[[Sequence[int]], np.ndarray]


class Windows:
    """Examples by batches: in their order, or sorted into buckets of length within windows of several steps.

    A window holds the same examples with and without sorting; in it they keep their order within a bucket, and the
    batches stand in an order of their own, so that lengths do not rise from step to step. Of a window's batches at most
    one for each bucket but the last is of mixed lengths.

    Args:
      batch_size: over all processes.
      steps: of a window; 1 for no sorting.
      seed: words that decide the order of a window's batches.
      buckets: of examples, (n,): numbers, ascending with length.
    """

    def __init__(self, batch_size: int, steps: int, seed: Sequence[int], buckets: Lengths):
        self._batch_size, self._steps, self._seed, self._buckets = batch_size, steps, tuple(seed), buckets
        self._known: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> list[int]:
        """The global indices of a step's examples, in the order of the batch's rows."""
        if self._steps == 1:
            return list(range(step * self._batch_size, (step + 1) * self._batch_size))
        window, place = divmod(step, self._steps)
        known = self._known
        if window not in known:
            known = self._known = {window: self._sorted(window)}  # whole, for several threads may be here
        return [int(example) for example in known[window][place]]

    def _sorted(self, window: int) -> np.ndarray:
        """(steps, batch)."""
        count = self._steps * self._batch_size
        examples = np.arange(window * count, (window + 1) * count)
        by_length = examples[np.argsort(self._buckets(examples.tolist()), kind="stable")]
        words = [word % 2**64 for word in (*self._seed, window)]  # SeedSequence takes no negative numbers
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
        return by_length.reshape(self._steps, self._batch_size)[random.permutation(self._steps)]
