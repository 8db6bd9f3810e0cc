"""What needs no learning: the nearest training picture in raw pixels, and the concept it shows.

Axes: n training pictures, m queries, c candidate concepts, p pixels (32 x 32 x RGB).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from jclip.errors import JclipError
from jclip.evaluate.metrics.recall import recall_of

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
Pictures = Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]

SIDE = 32
_BLOCK = 256


def pixel_recalls(
    train: Pictures,
    train_concepts_n: Array,
    queries: Pictures,
    query_concepts_m: Array,
    candidates_c: Array | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Image-to-text R@k of the pixel nearest neighbour: concepts ranked by their nearest training picture.

    Args:
      train, queries: uint8 (h, w, 3) pictures of any size; compared in 32 x 32.
      train_concepts_n, query_concepts_m: a key each.
      candidates_c: the concepts to choose among, those of the training pictures when None. One without a training
        picture comes last, tied with all others like it.
      ks: where to cut.

    Returns:
      Fractions in [0, 1]: "i2t_r1", ..., and "i2t_chance_r1", ...

    Raises:
      JclipError: no pictures, another number of keys than of pictures, or a query whose concept is no candidate.
    """
    train_concepts_n, query_concepts_m = np.asarray(train_concepts_n), np.asarray(query_concepts_m)
    for name, pictures, keys in (("training", train, train_concepts_n), ("query", queries, query_concepts_m)):
        if len(pictures) != len(keys) or not len(keys):
            raise JclipError(
                f"{len(pictures)} {name} pictures and {len(keys)} concepts: give one for each, at least one"
            )
    candidates_c = np.unique(train_concepts_n if candidates_c is None else np.asarray(candidates_c))
    strange = query_concepts_m[~np.isin(query_concepts_m, candidates_c)]
    if len(strange):
        raise JclipError(f"{len(strange)} queries show no candidate concept, such as {strange[0]!r}: add it")

    # Training pictures in the order of their concepts, so that each concept is one run of columns.
    known = np.isin(train_concepts_n, candidates_c)
    places_n = np.searchsorted(candidates_c, train_concepts_n[known])
    order = np.argsort(places_n, kind="stable")
    present, starts = np.unique(places_n[order], return_index=True)
    train_np, query_mp = _pixels(train)[known][order], _pixels(queries)
    found = recall_of(_scored(train_np, starts, present, query_mp, query_concepts_m, candidates_c), ks)
    return {f"i2t_{name}": value for name, value in found.items()}


def _scored(
    train_np: Floats, starts: Ints, present: Ints, query_mp: Floats, query_concepts_m: Array, candidates_c: Array
) -> Iterator[tuple[Floats, npt.NDArray[np.bool_]]]:
    """(scores_mc, positive_mc) of blocks of queries; `starts` are the rows where the concepts at `present` begin."""
    for start in range(0, len(query_mp), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores_mc = np.full((len(query_mp[block]), len(candidates_c)), -np.inf)
        if len(present):
            scores_mc[:, present] = -np.minimum.reduceat(_distances(query_mp[block], train_np), starts, axis=1)
        yield scores_mc, query_concepts_m[block, None] == candidates_c


def _distances(query_mp: Floats, train_np: Floats) -> Floats:
    # Squares of integers below 2**53: float64 keeps them exact, so that equal pictures tie exactly.
    squares_m1 = np.square(query_mp).sum(axis=1, keepdims=True)
    return squares_m1 - 2 * query_mp @ train_np.T + np.square(train_np).sum(axis=1)


def _pixels(pictures: Pictures) -> Floats:
    small = []
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise JclipError(f"a picture must be uint8 (h, w, 3), but one is {picture.dtype} {picture.shape}")
        if picture.shape[:2] != (SIDE, SIDE):
            picture = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        small.append(picture.reshape(-1))
    return np.asarray(small, np.float64).reshape(len(small), SIDE * SIDE * 3)
