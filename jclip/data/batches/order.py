"""Order of examples: a pure function of (seed, stage, global example index), never of hosts, workers or history."""

from collections.abc import Sequence

import numpy as np


class Order:
    """Groups of units, each shuffled again every epoch and mixed by weight.

    Args:
      lengths: number of units of each group, at least 1.
      weights: share of each group in the mixture; only their ratios matter.
      seed, stage: seed of the run, and number of the stage.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int, stage: int):
        import grain

        self._seed = (seed, stage)
        shuffled = [
            grain.MapDataset.range(length).map(_WithGroup(group)).shuffle(_seed32(seed, stage, group)).repeat()
            for group, length in enumerate(lengths)
        ]
        total = sum(weights)
        mixed = grain.MapDataset.mix(shuffled, [weight / total for weight in weights])
        self._order = shuffled[0] if len(shuffled) == 1 else mixed

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Returns the (group, unit) at a global example index."""
        group, unit = self._order[index]
        return group, unit

    def random(self, index: int) -> np.random.Generator:
        """Returns the random numbers of one example, which choose an image and a caption of its record."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([*self._seed, index])))


class _WithGroup:
    """Callable that returns (group, unit) of a unit's number."""

    def __init__(self, group: int):
        self._group = group

    def __call__(self, unit: int) -> tuple[int, int]:
        return self._group, int(unit)


def _seed32(*parts: int) -> int:
    """Returns a 32-bit seed from several numbers, because grain accepts no longer ones."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
