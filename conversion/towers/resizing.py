"""Models at another image size: interpolates position embeddings as each library does.

All three libraries interpolate bicubically over the grid of patches and keep the class token. They differ in the
sampling points:

  cn_clip    corners are aligned (`align_corners=True`), coefficient -0.75
  hf         centres of pixels are aligned, coefficient -0.75
  open_clip  as hf, with coefficient -0.5 and antialiasing (`antialias=True`)
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from jclip.conversion.towers import format_of
from jclip.errors import JclipError
from jclip.io.tensors import Lazy
from jclip.models.build import ModelConfig
from jclip.models.dual_encoder import DualEncoderConfig

Interpolation = Literal["hf", "cn_clip", "open_clip"]
_POSITIONS = "image/position_embedding"


def at_image_size(
    config: ModelConfig, tensors: Mapping[str, Lazy], size: int | None, how: Interpolation
) -> tuple[ModelConfig, dict[str, Lazy], dict[str, str]]:
    """Returns the configuration, the parameters, and the origin of each changed parameter, at another image size.

    Raises JclipError if the model does not support the size.

    Args:
      config, tensors: the model's configuration, and its parameters by path.
      size: side of the images in pixels; None keeps it.
      how: library whose interpolation is used.
    """
    if size is not None and size < 1:
        raise JclipError(f"--image-size is {size}, but must be 1 or more: choose another")
    if size is None or (isinstance(config, DualEncoderConfig) and size == config.image.image_size):
        return config, dict(tensors), {}
    if not isinstance(config, DualEncoderConfig):
        raise JclipError("--image-size does not apply to a text encoder: omit it")
    layout = format_of(config.image)
    if layout.resize is None:
        raise JclipError(f"--image-size does not apply to {layout.title}: omit it")
    (image, grid), old = layout.resize(config.image, size), tensors[_POSITIONS]

    def parts() -> Iterator[np.ndarray]:
        yield resized(old.read().astype(np.float32), grid, how).astype(old.dtype)

    new = Lazy((1 + grid * grid, old.shape[1]), old.dtype, parts)
    made = f"interpolated from {config.image.image_size} to {size} pixels as {how} does"
    return replace(config, image=image), {**tensors, _POSITIONS: new}, {_POSITIONS: made}


def resized(positions_ld: np.ndarray, size: int, how: Interpolation) -> np.ndarray:
    """Interpolates position embeddings (1 + side², width), the class token's first, to (1 + size², width), float32.

    For embeddings of standard deviation 1 the result differs by at most 6e-6 from PyTorch, which computes the sampling
    points in float32. `how` is the library whose interpolation is used.
    """
    side = math.isqrt(len(positions_ld) - 1)
    grid = positions_ld[1:].astype(np.float32).reshape(side, side, -1)
    weights = _weights(side, size, how).astype(np.float32)
    resized_hwd = np.einsum("ys,sxd->yxd", weights, np.einsum("xs,ysd->yxd", weights, grid))
    return np.concatenate([positions_ld[:1].astype(np.float32), resized_hwd.reshape(size * size, -1)])


def _weights(old: int, new: int, how: Interpolation) -> np.ndarray:
    """Returns (new, old): the weight of each old position in each new one, along one axis."""
    ratio = (old - 1) / max(new - 1, 1) if how == "cn_clip" else old / new
    at = np.arange(new) * ratio if how == "cn_clip" else (np.arange(new) + 0.5) * ratio - 0.5
    antialias = how == "open_clip"
    stretch = max(ratio, 1.0) if antialias else 1.0
    coefficient = -0.5 if antialias else -0.75
    weights = np.zeros((new, old))
    reach = math.ceil(2 * stretch) + 1
    for row, centre in enumerate(at):
        for place in range(math.floor(centre) - reach, math.floor(centre) + reach + 1):
            weight = _cubic((place - centre) / stretch, coefficient)
            if antialias and not 0 <= place < old:
                continue  # positions outside do not count; the other weights are normalised to sum to 1
            weights[row, min(max(place, 0), old - 1)] += weight
    return weights / weights.sum(axis=1, keepdims=True) if antialias else weights


def _cubic(x: float, a: float) -> float:
    """Returns the kernel of cubic convolution (Keys 1981)."""
    x = abs(x)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return a * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0
