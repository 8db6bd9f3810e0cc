"""The order of examples: a pure function of (seed, stage, global example index), never of hosts, workers or history."""

from collections.abc import Sequence

import numpy as np


class Order:
    """Which record of which source stands at a global index: sources shuffled anew each epoch, mixed by weight.

    Args:
      lengths: records of each source, at least 1.
      weights: of each source in the mixture; only their ratios matter.
      seed, stage: of the run, and the stage's number.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int, stage: int):
        import grain

        self._seed = (seed, stage)
        shuffled = [
            grain.MapDataset.range(length).map(_Tagged(source)).shuffle(_word(seed, stage, source)).repeat()
            for source, length in enumerate(lengths)
        ]
        total = sum(weights)
        mixed = grain.MapDataset.mix(shuffled, [weight / total for weight in weights])
        self._order = shuffled[0] if len(shuffled) == 1 else mixed

    def __getitem__(self, example: int) -> tuple[int, int]:
        """(source, record) at a global example index."""
        source, record = self._order[example]
        return source, record

    def draw(self, example: int) -> np.random.Generator:
        """The random numbers of one example: which of a record's pictures and captions it takes."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([*map(_natural, self._seed), example])))


class _Tagged:
    """Puts the source's number beside a record's."""

    def __init__(self, source: int):
        self._source = source

    def __call__(self, record: int) -> tuple[int, int]:
        return self._source, int(record)


def _word(*parts: int) -> int:
    """A 32-bit seed from several; grain takes no more."""
    return int(np.random.SeedSequence([*map(_natural, parts)]).generate_state(1)[0])


def _natural(number: int) -> int:
    """SeedSequence takes no negative numbers."""
    return number % 2**64
