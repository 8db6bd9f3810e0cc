"""Makes torchvision importable beside a CPU-only torch, because the reference packages import it.

torchvision's wheel is built against a CUDA torch. On a CPU torch its compiled operators do not load, and its Python
code raises where it refers to two of them (non-maximum suppression, which jclip never calls). Declaring these two is
enough.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_MISSING = ("nms", "qnms")
_kept: list[Any] = []  # a torch Library unregisters its operators when it is garbage-collected


class _BeforeTorchvision(MetaPathFinder):
    """Import hook that declares the operators before the first import of torchvision. It finds no module itself."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare_missing_operators()


def make_importable() -> None:
    """Makes torchvision, timm, cn_clip and open_clip importable. Does not import torch itself."""
    waiting = any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path)
    if not waiting and not _kept:  # torch refuses a second declaration
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
