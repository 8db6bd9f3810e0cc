"""A bundle as a model of CLIP_benchmark (LAION-AI, 1.6), so that its data sets and its metrics run on it.

It hands a model torch tensors and takes torch tensors back; in between jax computes. Here, because nothing else may
know torch: see `jclip eval benchmark`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jclip.bundle import load_bundle
from jclip.errors import JclipError
from jclip.images.preprocess import Picture, Preprocessing, to_array
from jclip.inference import Model

MODEL_TYPE = "jclip"


class Sentences(list[str]):
    """What the tokenizer gives: sentences as they are, for the model has its own tokenizer and fits their length."""

    def to(self, device: Any) -> "Sentences":
        """Themselves: jax has its own devices."""
        return self


class Transform:
    """A picture as the uint8 tensor (h, w, 3) that the model reads; data loaders may send it to their workers."""

    def __init__(self, preprocessing: Preprocessing):
        self._preprocessing = preprocessing

    def __call__(self, picture: Picture) -> Any:
        """The tensor of a PIL image."""
        import torch

        return torch.from_numpy(np.array(to_array(self._preprocessing, picture)))


class BenchmarkModel:
    """The two methods that CLIP_benchmark's metrics call, and what torch modules are asked besides."""

    def __init__(self, model: Model, device: Any = "cpu"):
        self._model, self._device = model, device

    def eval(self) -> "BenchmarkModel":
        """Itself: it never trains."""
        return self

    def to(self, device: Any) -> "BenchmarkModel":
        """Itself, giving its features on that device."""
        self._device = device
        return self

    def encode_image(self, images_bhwc: Any) -> Any:
        """(b, d) float32 from uint8 tensors that `Transform` made."""
        return self._tensor(self._model.encode_image(images_bhwc.cpu().numpy()))

    def encode_text(self, sentences: Sequence[str]) -> Any:
        """(n, d) float32."""
        return self._tensor(self._model.encode_text(list(sentences)))

    def _tensor(self, rows: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.array(rows)).to(self._device)


def load(
    model_name: str = "", pretrained: str = "", cache_dir: Any = None, device: Any = "cpu"
) -> tuple[BenchmarkModel, Transform, type[Sentences]]:
    """(model, transform, tokenizer), as CLIP_benchmark asks for them.

    Args:
      model_name: for its own tables; not read.
      pretrained: the bundle's folder.
      cache_dir: not read.
      device: of the features that come out.

    Raises:
      JclipError: the folder is no bundle, or one without an image tower.
    """
    del model_name, cache_dir
    bundle = load_bundle(Path(pretrained))
    if bundle.preprocessing is None:
        raise JclipError(f"{pretrained} is a text encoder alone: CLIP_benchmark needs an image tower too")
    return BenchmarkModel(Model(bundle), device), Transform(bundle.preprocessing), Sentences


def register() -> None:
    """Makes `--model_type jclip` known to CLIP_benchmark; `--pretrained` is then a bundle's folder.

    Raises:
      JclipError: it is not installed.
    """
    try:
        from clip_benchmark import models
    except ImportError as error:
        raise JclipError(
            f"CLIP_benchmark cannot be imported ({error}): install it with pip install clip-benchmark"
        ) from None
    models.TYPE2FUNC[MODEL_TYPE] = load
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)
