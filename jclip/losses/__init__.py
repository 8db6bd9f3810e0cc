"""Losses over a global batch.

Names:
  contrastive_loss, ContrastiveLoss: softmax or sigmoid loss of image-text pairs, and its options.
  teacher_loss: distance of a student's text states from a teacher's.
  l2_normalised: rows of length 1.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "contrastive_loss": "contrastive",
    "ContrastiveLoss": "contrastive",
    "teacher_loss": "distillation",
    "l2_normalised": "normalise",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
