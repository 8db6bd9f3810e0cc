"""The references are PyTorch packages that import torchvision, and torchvision fails to import beside a CPU-only torch.

Its wheel is built against the CUDA torch; on a CPU torch its compiled operators do not load, and Python code that only
refers to two of them (non-maximum suppression, which nothing here calls) raises. Declaring those two is enough.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_MISSING = ("nms", "qnms")
_kept: list[Any] = []  # a torch Library withdraws its operators when it is collected


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing itself; prepares torch at the moment something first imports torchvision."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare_missing_operators()


def make_importable() -> None:
    """From here on torchvision, timm, cn_clip and open_clip import; torch itself is not imported before they are."""
    waiting = any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path)
    if not waiting and not _kept:  # twice would be an error of torch's
        sys.meta_path.insert(0, _BeforeTorchvision())


def _declare_missing_operators() -> None:
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
            return
        except OSError:
            pass
    library = torch.library.Library("torchvision", "DEF")
    for name in _MISSING:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
