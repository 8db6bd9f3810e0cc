"""A baseline without learning: each query image takes the concept of the nearest training image in raw pixels.

Axes: n training images, m queries, c candidate concepts, p pixels (32 x 32 x RGB).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from jclip.errors import JclipError
from jclip.evaluate.metrics.recall import recall_of

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Pictures = Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]

SIDE = 32


def pixel_distances(queries: Pictures, train: Pictures) -> Floats:
    """Computes (m, n) squared distances in pixels, exactly, so that equal images tie exactly.

    Raises JclipError if an image is not uint8 (h, w, 3).
    """
    # Sums of squares of integers below 2**53 are exact in float64.
    train_np, query_mp = _pixels(train), _pixels(queries)
    squares_m1 = np.square(query_mp).sum(axis=1, keepdims=True)
    return squares_m1 - 2 * query_mp @ train_np.T + np.square(train_np).sum(axis=1)


def ranked_recalls(
    distances_mn: Floats,
    train_concepts_n: Array,
    query_concepts_m: Array,
    candidates_c: Array | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Computes image-to-text R@k: concepts are ranked by the distance of their nearest training image.

    Args:
      distances_mn: distances between queries and training images.
      train_concepts_n, query_concepts_m: a key for each image.
      candidates_c: concepts to rank; None for those of the training images. Those without a training image come last,
        as ties.
      ks: cut-offs.

    Returns fractions "i2t_r1", ..., and "i2t_chance_r1", .... Raises JclipError without images, if the numbers of keys
    and images differ, or if the concept of a query is not a candidate.
    """
    if not distances_mn.size:
        raise JclipError("no images to compare: give at least one training image and one query")
    train_concepts_n, query_concepts_m = np.asarray(train_concepts_n), np.asarray(query_concepts_m)
    for name, count, keys in zip(
        ("query", "training"), distances_mn.shape, (query_concepts_m, train_concepts_n), strict=True
    ):
        if count != len(keys):
            raise JclipError(f"{count} {name} images and {len(keys)} concepts: give one concept for each image")
    candidates_c = np.unique(train_concepts_n if candidates_c is None else np.asarray(candidates_c))
    unknown = query_concepts_m[~np.isin(query_concepts_m, candidates_c)]
    if len(unknown):
        raise JclipError(
            f"{len(unknown)} queries show a concept that is not a candidate, such as {unknown[0]!r}: add it"
        )

    # Sorted by concept, so that the images of each concept are adjacent columns.
    known = np.flatnonzero(np.isin(train_concepts_n, candidates_c))
    places_n = np.searchsorted(candidates_c, train_concepts_n[known])
    order = np.argsort(places_n, kind="stable")
    present, starts = np.unique(places_n[order], return_index=True)
    scores_mc = np.full((len(query_concepts_m), len(candidates_c)), -np.inf)
    if len(present):
        scores_mc[:, present] = -np.minimum.reduceat(distances_mn[:, known[order]], starts, axis=1)
    found = recall_of([(scores_mc, query_concepts_m[:, None] == candidates_c)], ks)
    return {f"i2t_{name}": value for name, value in found.items()}


def _pixels(pictures: Pictures) -> Floats:
    small = []
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise JclipError(f"an image must be uint8 (h, w, 3), but one is {picture.dtype} {picture.shape}")
        if picture.shape[:2] != (SIDE, SIDE):
            picture = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        small.append(picture.reshape(-1))
    return np.asarray(small, np.float64).reshape(len(small), SIDE * SIDE * 3)
