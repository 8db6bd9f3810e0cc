"""Replaces the random numbers of timm and torchvision by given ones."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import pytest


class SameDraw:
    """Stand-in for the part of Python's module `random` that timm uses.

    Args:
      draw: gives numbers, uniform in [0, 1).
    """

    def __init__(self, draw: Callable[[], float]):
        self.random = draw

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def randint(self, low: int, high: int) -> int:
        return low + int((high - low + 1) * self.random())

    def choice(self, items: Sequence[Any]) -> Any:
        return items[int(len(items) * self.random())]


@contextmanager
def drawing_from(draw: Callable[[], float]):
    """Makes the transforms of timm and torchvision draw from `draw` in this context."""
    import torch
    from timm.data import auto_augment, transforms

    same = SameDraw(draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_augment, "random", same)
        patch.setattr(transforms, "random", same)
        patch.setattr(torch, "rand", lambda count: torch.tensor([same.random() for _ in range(count)]).double())
        yield
