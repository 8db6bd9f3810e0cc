"""The random numbers of a numpy generator under the names by which timm and torchvision ask for theirs."""

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest


class SameDraw:
    """Python's module `random`, as far as timm uses it."""

    def __init__(self, draw: np.random.Generator):
        self._draw = draw

    def random(self) -> float:
        return self._draw.random()

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._draw.random()

    def randint(self, low: int, high: int) -> int:
        return low + int(self._draw.integers(high - low, endpoint=True))

    def choice(self, items: Sequence[Any]) -> Any:
        return items[int(self._draw.integers(len(items)))]


@contextmanager
def drawing_from(draw: np.random.Generator):
    """timm's and torchvision's transforms draw from `draw`, inside."""
    import torch
    from timm.data import auto_augment, transforms

    same = SameDraw(draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_augment, "random", same)
        patch.setattr(transforms, "random", same)
        patch.setattr(torch, "rand", lambda count: torch.tensor([same.random() for _ in range(count)]).double())
        yield
