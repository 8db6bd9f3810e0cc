"""Position embeddings for another image size, as each library that the weights come from makes them.

All three interpolate bicubically over the grid of places and keep the class token's; they differ in where they sample:

  cn_clip    corners fall on corners (`align_corners=True`), coefficient -0.75
  hf         centres of pixels fall on centres of pixels, coefficient -0.75
  open_clip  as hf, but with coefficient -0.5, and averaging over what falls away (`antialias=True`)
"""

import math

import numpy as np

from jclip.conversion.families.family import Interpolation


def resized(positions_ld: np.ndarray, size: int, how: Interpolation) -> np.ndarray:
    """Position embeddings for a grid of another side.

    Args:
      positions_ld: (1 + side², width), the class token's first; float32.
      size: side of the new grid.
      how: whose interpolation.

    Returns:
      (1 + size², width), float32. On embeddings of standard deviation 1 at most 6e-6 from PyTorch's, which computes in
      float32 where to sample.
    """
    side = math.isqrt(len(positions_ld) - 1)
    grid = positions_ld[1:].astype(np.float32).reshape(side, side, -1)
    weights = _weights(side, size, how).astype(np.float32)
    resized_hwd = np.einsum("ys,sxd->yxd", weights, np.einsum("xs,ysd->yxd", weights, grid))
    return np.concatenate([positions_ld[:1].astype(np.float32), resized_hwd.reshape(size * size, -1)])


def _weights(old: int, new: int, how: Interpolation) -> np.ndarray:
    """(new, old): how much of each old place a new one takes along one axis."""
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
                continue  # places beyond the edge do not count, and the others' weights are made to sum to 1
            weights[row, min(max(place, 0), old - 1)] += weight
    return weights / weights.sum(axis=1, keepdims=True) if antialias else weights


def _cubic(x: float, a: float) -> float:
    """The kernel of cubic convolution (Keys 1981)."""
    x = abs(x)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return a * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0
