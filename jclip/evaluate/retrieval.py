"""Recall of retrieval between pictures and captions, exact under ties.

A query is a hit at k when any of its positives is among the k best of the gallery. Equal scores stand in random order,
and what is counted is the expected hit over that order: a model whose features are all alike scores chance, neither 0
nor 100 %.

Axes: n images, m texts, d features, q queries, g gallery.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError

Array = npt.NDArray[np.generic]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TIE = 1e-9
"""Cosines closer than this are equal: far below what float32 features resolve, far above float64's rounding."""

_BLOCK = 2**22
"""Scores held at once, in one array: 32 MiB."""


def recalls(
    image_nd: Array, text_md: Array, image_keys_n: Array, text_keys_m: Array, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Text-to-image and image-to-text R@k by cosine.

    Args:
      image_nd, text_md: features of any scale.
      image_keys_n, text_keys_m: an image and a text with equal keys are positives of each other, however many share a
        key. A query without any positive is not asked.
      ks: where to cut; a k beyond the gallery means all of it.

    Returns:
      Fractions in [0, 1]: "t2i_r1", ..., "i2t_r1", ..., "mean_recall" over all of these, and what random features would
      score, "t2i_chance_r1", ..., "i2t_chance_r1", ...

    Raises:
      JclipError: features that are not finite, shapes that do not fit, or no pair at all.
    """
    i2t = recall(image_nd, text_md, image_keys_n, text_keys_m, ks, names=("image", "text"))
    t2i = recall(text_md, image_nd, text_keys_m, image_keys_n, ks, names=("text", "image"))
    found = {f"t2i_r{k}": t2i[f"r{k}"] for k in ks} | {f"i2t_r{k}": i2t[f"r{k}"] for k in ks}
    by_chance = {f"{way}_{name}": value for way, one in (("t2i", t2i), ("i2t", i2t)) for name, value in one.items()}
    return found | {"mean_recall": float(np.mean(list(found.values())))} | by_chance


def recall(
    query_qd: Array,
    gallery_gd: Array,
    query_keys_q: Array,
    gallery_keys_g: Array,
    ks: Sequence[int] = (1, 5, 10),
    *,
    names: tuple[str, str] = ("query", "gallery"),
) -> dict[str, float]:
    """R@k by cosine in one direction: "r1", ..., and "chance_r1", ...; see `recalls`.

    The scores are computed and judged in blocks of queries, so that the whole matrix is never held.
    """
    query_qd, gallery_gd = _unit(query_qd, names[0]), _unit(gallery_gd, names[1])
    if query_qd.shape[1] != gallery_gd.shape[1]:
        raise JclipError(f"{names[0]} features are {query_qd.shape[1]} wide, {names[1]} ones {gallery_gd.shape[1]}")
    query_keys_q, gallery_keys_g = np.asarray(query_keys_q), np.asarray(gallery_keys_g)
    for name, features, keys in (
        (names[0], query_qd, query_keys_q),
        (names[1], gallery_gd, gallery_keys_g),
    ):
        if keys.shape != features.shape[:1]:
            raise JclipError(f"{len(features)} rows of {name} features need as many keys: given {keys.shape}")
    asked = np.isin(query_keys_q, gallery_keys_g)
    if not asked.any():
        raise JclipError(f"no {names[0]} has a {names[1]} of the same key: nothing can be scored")
    query_qd, query_keys_q = query_qd[asked], query_keys_q[asked]
    blocks = (
        (query_qd[block] @ gallery_gd.T, query_keys_q[block, None] == gallery_keys_g)
        for block in _blocks(len(query_qd), len(gallery_gd))
    )
    return recall_of(blocks, ks, tie=TIE)


def recall_of(blocks: Iterable[tuple[Floats, Bools]], ks: Sequence[int], *, tie: float = 0) -> dict[str, float]:
    """R@k from blocks of queries, each (scores_qg, positive_qg), and what chance would give: "r1", ..., "chance_r1"...

    Scores are taken as `expected_hits` takes them.
    """
    judged = [(expected_hits(scores, positive, ks, tie=tie), chance(positive, ks)) for scores, positive in blocks]
    hit_k, chance_k = (np.concatenate(figures).mean(axis=0) for figures in zip(*judged, strict=True))
    found = {f"r{k}": float(value) for k, value in zip(ks, hit_k, strict=True)}
    return found | {f"chance_r{k}": float(value) for k, value in zip(ks, chance_k, strict=True)}


def expected_hits(scores_qg: Floats, positive_qg: Bools, ks: Sequence[int], *, tie: float = 0) -> Floats:
    """For each query and k, the probability that a positive is among the k best scores, (q, len(ks)).

    Args:
      scores_qg: higher is better. NaN counts as the lowest score there is, so that a matrix of NaN scores chance.
      positive_qg: which of the gallery answer which query; a query without any is never a hit.
      ks: where to cut.
      tie: scores no further than this from the best positive's are equal to it.
    """
    scores_qg = np.where(np.isnan(scores_qg), -np.inf, scores_qg).astype(np.float64)
    best_q1 = scores_qg.max(axis=1, keepdims=True, initial=-np.inf, where=positive_qg)
    better_qg = scores_qg > best_q1 + tie
    # Only the positives as good as the best one count: where they draw a place, it is a hit; the others stand lower.
    tied_qg = (scores_qg >= best_q1 - tie) & ~better_qg
    better_q, tied_q = better_qg.sum(axis=1), tied_qg.sum(axis=1)
    return _drawn(tied_q, (tied_qg & positive_qg).sum(axis=1), np.asarray(ks) - better_q[:, None])


def chance(positive_qg: Bools, ks: Sequence[int]) -> Floats:
    """What random scores are expected to hit, (q, len(ks)): 1 - C(g - p, k) / C(g, k) with p positives among g."""
    gallery_q = np.full(len(positive_qg), positive_qg.shape[1])
    return _drawn(gallery_q, positive_qg.sum(axis=1), np.broadcast_to(np.asarray(ks), (len(positive_qg), len(ks))))


def topk(query_qd: Array, gallery_gd: Array, k: int) -> tuple[Ints, Floats]:
    """The k nearest of the gallery by cosine, best first, equal ones in the gallery's order.

    Returns:
      (q, min(k, g)) indices into the gallery, and their cosines.

    Raises:
      JclipError: features that are not finite.
    """
    query_qd, gallery_gd = _unit(query_qd, "query"), _unit(gallery_gd, "gallery")
    indices, scores = [np.zeros((0, min(k, len(gallery_gd))), np.int64)], []
    for block in _blocks(len(query_qd), len(gallery_gd)):
        scores_qg = query_qd[block] @ gallery_gd.T
        # Rounded, lest equal pictures change places by the last bit of a product.
        indices.append(np.argsort(-scores_qg.round(9), axis=1, kind="stable")[:, :k])
        scores.append(np.take_along_axis(scores_qg, indices[-1], axis=1))
    return np.concatenate(indices), np.concatenate(scores) if scores else np.zeros(indices[0].shape)


def _drawn(balls_q: Ints, winning_q: Ints, draws_qk: Ints) -> Floats:
    """The probability that draws without replacement, any number or none, bring at least one of the winning balls."""
    balls_q1, losing_q1 = balls_q[:, None], (balls_q - winning_q)[:, None]
    none_qk = np.ones(draws_qk.shape)
    for i in range(max(0, min(draws_qk.max(initial=0), balls_q.max(initial=0)))):
        # When the losing balls run out the factor is 0, and stays 0: the hit is certain.
        factor_q1 = np.maximum(losing_q1 - i, 0) / np.maximum(balls_q1 - i, 1)
        none_qk = np.where(i < draws_qk, none_qk * factor_q1, none_qk)
    return np.where(winning_q[:, None] > 0, 1 - none_qk, 0.0)


def _unit(features: Array, name: str) -> Floats:
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or not len(rows):
        raise JclipError(f"{name} features must be (rows, width), at least one row: given {rows.shape}")
    broken = int((~np.isfinite(rows)).any(axis=1).sum())
    if broken:
        raise JclipError(
            f"{name} features: {broken} of {len(rows)} rows are not finite: the model has diverged, "
            "or was converted wrongly"
        )
    # Two steps, so that no scale overflows or vanishes. A row of zeros stays one: it is as near to everything.
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0), np.finfo(np.float64).tiny)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _blocks(queries: int, gallery: int) -> Iterator[slice]:
    size = max(1, _BLOCK // max(1, gallery))
    return (slice(start, start + size) for start in range(0, queries, size))
