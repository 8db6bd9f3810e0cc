"""Adapts a bundle to CLIP_benchmark (LAION-AI, 1.6), so that its data sets and metrics run on it.

CLIP_benchmark passes torch tensors to a model and expects torch tensors. The adapter is in `jclip.conversion` because
only this package imports torch. `jclip eval benchmark` uses it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from jclip.bundle import load_bundle
from jclip.conversion.parity import peers
from jclip.errors import JclipError
from jclip.images.preprocess import Picture, Preprocessing, to_array
from jclip.inference import Model

MODEL_TYPE = "jclip"


class Sentences(list[str]):
    """Result of the tokenizer: the sentences themselves, because the model tokenizes them."""

    def to(self, device: Any) -> "Sentences":
        """Returns the sentences unchanged; jax places its arrays itself."""
        return self


class Transform:
    """Transform of an image to the uint8 tensor (h, w, 3) that the model reads; can be pickled for data loaders."""

    def __init__(self, preprocessing: Preprocessing):
        self._preprocessing = preprocessing

    def __call__(self, picture: Picture) -> Any:
        """Returns the tensor of a PIL image."""
        import torch

        return torch.from_numpy(np.array(to_array(self._preprocessing, picture)))


class BenchmarkModel:
    """Model with the methods of a torch module that CLIP_benchmark's metrics call."""

    def __init__(self, model: Model, device: Any = "cpu"):
        self._model, self._device = model, device

    def eval(self) -> "BenchmarkModel":
        """Returns itself; it is never in training mode."""
        return self

    def to(self, device: Any) -> "BenchmarkModel":
        """Returns itself after choosing the device of its features."""
        self._device = device
        return self

    def encode_image(self, images_bhwc: Any) -> Any:
        """Returns (b, d) float32 features of the uint8 tensors of `Transform`."""
        return self._tensor(self._model.encode_image(images_bhwc.cpu().numpy()))

    def encode_text(self, sentences: Sequence[str]) -> Any:
        """Returns (n, d) float32 features."""
        return self._tensor(self._model.encode_text(list(sentences)))

    def _tensor(self, rows: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.array(rows)).to(self._device)


def load_benchmark_model(
    model_name: str = "", pretrained: str = "", cache_dir: Any = None, device: Any = "cpu"
) -> tuple[BenchmarkModel, Transform, type[Sentences]]:
    """Returns model, transform and tokenizer, as CLIP_benchmark's loaders do.

    `pretrained` is the folder of a bundle; `device` is the torch device of the returned features. Other arguments are
    ignored. Raises JclipError if the folder is not a bundle with an image tower.
    """
    del model_name, cache_dir
    bundle = load_bundle(Path(pretrained))
    if bundle.preprocessing is None:
        raise JclipError(f"{pretrained} has no image tower, which CLIP_benchmark needs: give another bundle")
    return BenchmarkModel(Model(bundle), device), Transform(bundle.preprocessing), Sentences


def register() -> None:
    """Registers `--model_type jclip` with CLIP_benchmark, so that `--pretrained` takes the folder of a bundle.

    Raises JclipError if CLIP_benchmark is not installed.
    """
    try:
        from clip_benchmark import models
    except ImportError as error:
        raise JclipError(f"CLIP_benchmark cannot be imported ({error}): pip install clip-benchmark") from None
    models.TYPE2FUNC[MODEL_TYPE] = load_benchmark_model
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)


def run(bundle: Path, options: Sequence[str] = ()) -> int:
    """Runs CLIP_benchmark's command line on a bundle; returns the exit code. Raises JclipError if one is missing."""
    if not (bundle / "config.json").is_file():
        raise JclipError(f"{bundle} is not a bundle, because it has no config.json: give the folder of a bundle")
    peers.make_importable()
    register()
    ours = ["--model_type", MODEL_TYPE, "--model", bundle.name, "--pretrained", str(bundle)]
    before, sys.argv = sys.argv, ["clip_benchmark", "eval", *ours, *options]
    try:
        return int(import_module("clip_benchmark.cli").main() or 0)
    finally:
        sys.argv = before
