"""Recall at k (R@k) between images and captions, exact under ties.

A query is a hit at k if one of its positives is among the k best of the gallery. Ties count as the expected hit over
random orders of equal scores: a model with constant features scores chance, neither 0 nor 100 %.

Axes: n images, m texts, d features, q queries, g gallery, c candidates.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate.metrics.nearest import candidates
from jclip.evaluate.metrics.positives import Positives

Array = npt.NDArray[np.generic]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TIE = 1e-9
"""Maximum difference of tied cosines: far below the resolution of float32 features, far above float64 rounding."""

_BLOCK = 2**22
"""Maximum number of scores in one array: 32 MiB. Larger problems use the devices."""

_MORE = 16
"""Number of candidates beyond the largest k. A query with more near ties than that searches the gallery in float64."""


def recall(
    image_nd: Array,
    text_md: Array,
    image_keys_n: Array | None = None,
    text_keys_m: Array | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Computes text-to-image and image-to-text R@k by cosine.

        jclip.evaluate.recall(model.encode_image(pictures), model.encode_text(captions))["t2i_r1"]

    Args:
      image_nd, text_md: features of any norm.
      image_keys_n, text_keys_m: images and texts with equal keys are positives; any number may share a key. Queries
        without positives are left out. The default keys are row numbers: image i belongs to text i.
      ks: cutoffs; a k beyond the gallery means all of it.

    Returns:
      Fractions: "t2i_r1", ..., "i2t_r1", ..., their mean "mean_recall", and the expected recall of random features,
      "t2i_chance_r1", ..., "i2t_chance_r1", ...

    Raises:
      JclipError: features are not finite, shapes do not fit, or there is no positive pair.
    """
    text_keys_m = np.arange(len(text_md)) if text_keys_m is None else text_keys_m
    image_keys_n = np.arange(len(image_nd)) if image_keys_n is None else image_keys_n
    for name, features, keys in (("text", text_md, text_keys_m), ("image", image_nd, image_keys_n)):
        if np.shape(keys) != np.shape(features)[:1]:
            raise JclipError(f"{len(features)} rows of {name} features need as many keys: given {np.shape(keys)}")
    positives = Positives.from_keys(text_keys_m, image_keys_n)
    i2t = query_hits(image_nd, text_md, positives.swapped(), ks, names=("image", "text"))
    t2i = query_hits(text_md, image_nd, positives, ks, names=("text", "image"))
    return both_ways({"t2i": t2i, "i2t": i2t})


@dataclass(frozen=True)
class QueryHits:
    """Hits of the queries that have positives.

    Attributes:
      ks: cutoffs.
      asked_q: row numbers of the queries.
      hits_qk: probabilities that a positive is among the k best; 0 or 1 without ties.
      chance_qk: expected hits of random scores.
    """

    ks: tuple[int, ...]
    asked_q: Ints
    hits_qk: Floats
    chance_qk: Floats

    def recall(self) -> dict[str, float]:
        """Returns means over the queries: "r1", ..., and "chance_r1", ..."""
        return _named(self.ks, self.hits_qk, self.chance_qk)


def both_ways(hits: Mapping[str, QueryHits]) -> dict[str, float]:
    """Returns the figures of one or two directions, as `recall` names them; "mean_recall" is over all of them."""
    found = {way: one.recall() for way, one in hits.items()}
    figures = {f"{way}_r{k}": found[way][f"r{k}"] for way, one in hits.items() for k in one.ks}
    by_chance = {f"{way}_chance_r{k}": found[way][f"chance_r{k}"] for way, one in hits.items() for k in one.ks}
    return figures | {"mean_recall": float(np.mean(list(figures.values())))} | by_chance


def query_hits(
    query_qd: Array,
    gallery_gd: Array,
    positives: Positives,
    ks: Sequence[int] = (1, 5, 10),
    *,
    names: tuple[str, str] = ("query", "gallery"),
) -> QueryHits:
    """Computes the hits of each query by cosine, in one direction.

    The devices of the mesh reduce a large gallery to candidates, see `nearest`. Hits are computed in float64.

    Args:
      query_qd, gallery_gd: features of any norm.
      positives: positives of the queries.
      ks: cutoffs.
      names: names of queries and gallery, for messages.

    Raises:
      JclipError: features are not finite, shapes do not fit, or no query has a positive.
    """
    query_qd, gallery_gd = _fitting(query_qd, gallery_gd, names)
    if (positives.queries, positives.gallery) != (len(query_qd), len(gallery_gd)):
        raise JclipError(
            f"{len(query_qd)} {names[0]} features and {len(gallery_gd)} {names[1]} features do not fit answers for "
            f"{positives.queries} among {positives.gallery}"
        )
    asked_q = np.flatnonzero(positives.counts_q)
    if not len(asked_q):
        raise JclipError(f"no {names[0]} has a {names[1]} that belongs to it: nothing can be scored")
    query_qd, positives = query_qd[asked_q], positives.take(asked_q)
    hits_qk = np.zeros((len(asked_q), len(ks)))
    for rows, hits in _hits(query_qd, gallery_gd, positives, ks):
        hits_qk[rows] = hits
    everything_q = np.full(len(asked_q), len(gallery_gd))
    cuts_qk = np.broadcast_to(np.asarray(ks), hits_qk.shape)
    return QueryHits(tuple(ks), asked_q, hits_qk, _drawn(everything_q, positives.counts_q, cuts_qk))


def _hits(
    query_qd: Floats, gallery_gd: Floats, positives: Positives, ks: Sequence[int]
) -> Iterator[tuple[Ints, Floats]]:
    """Yields (rows, hits_qk) until all queries are decided."""
    undecided = np.arange(len(query_qd))
    if len(query_qd) * len(gallery_gd) > _BLOCK:
        left = []
        for block, columns_qc, bound_q in candidates(query_qd, gallery_gd, max(ks) + _MORE):
            rows_q = undecided[block]
            scores_qc = _rescored(query_qd[rows_q], gallery_gd, columns_qc)
            right_qc = positives.of(rows_q, columns_qc)
            best_q = scores_qc.max(axis=1, initial=-np.inf, where=right_qc)
            # Decided: all rows as good as the best positive are candidates; or at least max(ks) candidates are better
            # than any other positive can be.
            seen_q = best_q - TIE > bound_q
            missed_q = ~seen_q & ((scores_qc > np.maximum(best_q, bound_q)[:, None] + 2 * TIE).sum(axis=1) >= max(ks))
            yield rows_q[seen_q], expected_hits(scores_qc[seen_q], right_qc[seen_q], ks, tie=TIE)
            yield rows_q[missed_q], np.zeros((int(missed_q.sum()), len(ks)))
            left.append(rows_q[~seen_q & ~missed_q])
        undecided = np.concatenate(left)
    for block in _blocks(len(undecided), len(gallery_gd)):
        rows_q = undecided[block]
        yield rows_q, expected_hits(query_qd[rows_q] @ gallery_gd.T, positives.rows(rows_q), ks, tie=TIE)


def recall_of(blocks: Iterable[tuple[Floats, Bools]], ks: Sequence[int], *, tie: float = 0) -> dict[str, float]:
    """Computes R@k and its chance, "r1", ..., "chance_r1", ..., from blocks of queries (scores_qg, positive_qg)."""
    judged = [(expected_hits(scores, positive, ks, tie=tie), chance(positive, ks)) for scores, positive in blocks]
    return _named(ks, *(np.concatenate(figures) for figures in zip(*judged, strict=True)))


def expected_hits(scores_qg: Floats, positive_qg: Bools, ks: Sequence[int], *, tie: float = 0) -> Floats:
    """Returns (q, k) probabilities that a positive is among the k best scores.

    Args:
      scores_qg: higher is better. NaN counts as the lowest score, so that a matrix of NaN scores chance.
      positive_qg: positives of each query; a query without any is never a hit.
      ks: cutoffs.
      tie: maximum distance of scores that equal the best positive's.
    """
    scores_qg = np.where(np.isnan(scores_qg), -np.inf, scores_qg).astype(np.float64)
    best_q1 = scores_qg.max(axis=1, keepdims=True, initial=-np.inf, where=positive_qg)
    better_qg = scores_qg > best_q1 + tie
    # Only positives that tie with the best one matter; the others rank lower.
    tied_qg = (scores_qg >= best_q1 - tie) & ~better_qg
    better_q, tied_q = better_qg.sum(axis=1), tied_qg.sum(axis=1)
    return _drawn(tied_q, (tied_qg & positive_qg).sum(axis=1), np.asarray(ks) - better_q[:, None])


def chance(positive_qg: Bools, ks: Sequence[int]) -> Floats:
    """Returns (q, k) expected hits of random scores: 1 - C(g - p, k) / C(g, k) with p positives among g."""
    gallery_q = np.full(len(positive_qg), positive_qg.shape[1])
    return _drawn(gallery_q, positive_qg.sum(axis=1), np.broadcast_to(np.asarray(ks), (len(positive_qg), len(ks))))


def topk(query_qd: Array, gallery_gd: Array, k: int) -> tuple[Ints, Floats]:
    """Finds the k nearest gallery rows by cosine, best first, ties in the gallery's order.

    Args:
      query_qd, gallery_gd: features of any norm.
      k: number of rows; at most the gallery's size.

    Returns:
      (q, min(k, g)) indices into the gallery, and their cosines.

    Raises:
      JclipError: features are not finite, or shapes do not fit.
    """
    query_qd, gallery_gd = _fitting(query_qd, gallery_gd, ("query", "gallery"))
    k = min(k, len(gallery_gd))
    indices_qk, scores_qk = np.zeros((len(query_qd), k), np.int64), np.zeros((len(query_qd), k))
    undecided = np.arange(len(query_qd))
    if len(query_qd) * len(gallery_gd) > _BLOCK:
        left = []
        for block, columns_qc, bound_q in candidates(query_qd, gallery_gd, k + _MORE):
            columns_qc = np.sort(columns_qc, axis=1)  # equal ones in the gallery's order
            found = _rescored(query_qd[block], gallery_gd, columns_qc)
            places_qk, scores_qk[block] = _best(found, k)
            indices_qk[block] = np.take_along_axis(columns_qc, places_qk, axis=1)
            left.append(undecided[block][scores_qk[block][:, -1] <= bound_q + TIE])
        undecided = np.concatenate(left)
    for block in _blocks(len(undecided), len(gallery_gd)):
        rows_q = undecided[block]
        indices_qk[rows_q], scores_qk[rows_q] = _best(query_qd[rows_q] @ gallery_gd.T, k)
    return indices_qk, scores_qk


def _best(scores_qg: Floats, k: int) -> tuple[Ints, Floats]:
    # Rounded, so that equal images keep their order despite float64 rounding.
    indices_qk = np.argsort(-scores_qg.round(9), axis=1, kind="stable")[:, :k]
    return indices_qk, np.take_along_axis(scores_qg, indices_qk, axis=1)


def _rescored(query_qd: Floats, gallery_gd: Floats, columns_qc: Ints) -> Floats:
    """Returns (q, c) cosines of each query and its candidates."""
    parts = [np.zeros((0, columns_qc.shape[1]))]
    for block in _blocks(len(query_qd), columns_qc.shape[1] * gallery_gd.shape[1]):
        parts.append(np.einsum("qd,qcd->qc", query_qd[block], gallery_gd[columns_qc[block]]))
    return np.concatenate(parts)


def _named(ks: Sequence[int], hits_qk: Floats, chance_qk: Floats) -> dict[str, float]:
    found = {f"r{k}": float(value) for k, value in zip(ks, hits_qk.mean(axis=0), strict=True)}
    return found | {f"chance_r{k}": float(value) for k, value in zip(ks, chance_qk.mean(axis=0), strict=True)}


def _fitting(query_qd: Array, gallery_gd: Array, names: tuple[str, str]) -> tuple[Floats, Floats]:
    """Returns both as float64 rows of unit norm. Raises JclipError if they are not finite, or their widths differ."""
    query_qd, gallery_gd = _unit(query_qd, names[0]), _unit(gallery_gd, names[1])
    if query_qd.shape[1] != gallery_gd.shape[1]:
        raise JclipError(
            f"{names[0]} features are {query_qd.shape[1]} wide, {names[1]} ones {gallery_gd.shape[1]}: encode both "
            "with the same model"
        )
    return query_qd, gallery_gd


def _drawn(balls_q: Ints, winning_q: Ints, draws_qk: Ints) -> Floats:
    """Returns the probabilities that draws without replacement contain at least one winning ball."""
    balls_q1, losing_q1 = balls_q[:, None], (balls_q - winning_q)[:, None]
    none_qk = np.ones(draws_qk.shape)
    for i in range(max(0, min(draws_qk.max(initial=0), balls_q.max(initial=0)))):
        # Without losing balls left the factor is 0: a hit is certain.
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
    # In two steps, to avoid overflow and underflow. A row of zeros stays zero, so all its cosines are ties.
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0), np.finfo(np.float64).tiny)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _blocks(queries: int, gallery: int) -> Iterator[slice]:
    size = max(1, _BLOCK // max(1, gallery))
    return (slice(start, start + size) for start in range(0, queries, size))
