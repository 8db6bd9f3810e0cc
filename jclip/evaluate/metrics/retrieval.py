"""Recall of retrieval between pictures and captions, exact under ties.

A query is a hit at k when any of its positives is among the k best of the gallery. Equal scores stand in random order,
and what is counted is the expected hit over that order: a model whose features are all alike scores chance, neither 0
nor 100 %.

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
"""Cosines closer than this are equal: far below what float32 features resolve, far above float64's rounding."""

_BLOCK = 2**22
"""Scores held at once, in one array: 32 MiB. Below that, nothing is gained by asking the devices."""

_MORE = 16
"""Candidates beyond the largest k: so many may nearly tie there before all of a gallery is looked at in float64."""


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
    images_of_texts = _positives(("text", text_md, text_keys_m), ("image", image_nd, image_keys_n))
    i2t = judge(image_nd, text_md, images_of_texts.swapped(), ks, names=("image", "text"))
    t2i = judge(text_md, image_nd, images_of_texts, ks, names=("text", "image"))
    return both_ways({"t2i": t2i, "i2t": i2t})


def recall(
    query_qd: Array,
    gallery_gd: Array,
    query_keys_q: Array,
    gallery_keys_g: Array,
    ks: Sequence[int] = (1, 5, 10),
    *,
    names: tuple[str, str] = ("query", "gallery"),
) -> dict[str, float]:
    """R@k by cosine in one direction: "r1", ..., and "chance_r1", ...; see `recalls`."""
    positives = _positives((names[0], query_qd, query_keys_q), (names[1], gallery_gd, gallery_keys_g))
    return judge(query_qd, gallery_gd, positives, ks, names=names).recall()


@dataclass(frozen=True)
class Judged:
    """What came of each query that has an answer.

    Attributes:
      ks: where was cut.
      asked_q: its row.
      hits_qk: the probability that an answer of it is among the k best; 0 or 1 where no scores are equal.
      chance_qk: what random scores would hit.
    """

    ks: tuple[int, ...]
    asked_q: Ints
    hits_qk: Floats
    chance_qk: Floats

    def recall(self) -> dict[str, float]:
        """Means over the queries: "r1", ..., and "chance_r1", ..."""
        return _named(self.ks, self.hits_qk, self.chance_qk)


def both_ways(judged: Mapping[str, Judged]) -> dict[str, float]:
    """The figures of one direction or two, as `recalls` names them; "mean_recall" is over all of them."""
    found = {way: one.recall() for way, one in judged.items()}
    figures = {f"{way}_r{k}": found[way][f"r{k}"] for way, one in judged.items() for k in one.ks}
    by_chance = {f"{way}_chance_r{k}": found[way][f"chance_r{k}"] for way, one in judged.items() for k in one.ks}
    return figures | {"mean_recall": float(np.mean(list(figures.values())))} | by_chance


def judge(
    query_qd: Array,
    gallery_gd: Array,
    positives: Positives,
    ks: Sequence[int] = (1, 5, 10),
    *,
    names: tuple[str, str] = ("query", "gallery"),
) -> Judged:
    """Hits of each query by cosine, in one direction; see `recalls`.

    A large gallery is first narrowed down by the devices of the mesh, see `nearest`; what counts is always float64.

    Raises:
      JclipError: features that are not finite, shapes that do not fit, or no query with an answer.
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
    return Judged(tuple(ks), asked_q, hits_qk, _drawn(everything_q, positives.counts_q, cuts_qk))


def _hits(
    query_qd: Floats, gallery_gd: Floats, positives: Positives, ks: Sequence[int]
) -> Iterator[tuple[Ints, Floats]]:
    """(rows, hits_qk) until every query has had its turn."""
    undecided = np.arange(len(query_qd))
    if len(query_qd) * len(gallery_gd) > _BLOCK:
        left = []
        for block, columns_qc, bound_q in candidates(query_qd, gallery_gd, max(ks) + _MORE):
            rows_q = undecided[block]
            scores_qc = _rescored(query_qd[rows_q], gallery_gd, columns_qc)
            right_qc = positives.of(rows_q, columns_qc)
            best_q = scores_qc.max(axis=1, initial=-np.inf, where=right_qc)
            # All that is as good as the best answer is among the candidates; or so many of them are better than
            # any other answer can be that none of those is a hit.
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
    """R@k from blocks of queries, each (scores_qg, positive_qg), and what chance would give: "r1", ..., "chance_r1"...

    Scores are taken as `expected_hits` takes them.
    """
    judged = [(expected_hits(scores, positive, ks, tie=tie), chance(positive, ks)) for scores, positive in blocks]
    return _named(ks, *(np.concatenate(figures) for figures in zip(*judged, strict=True)))


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
      JclipError: features that are not finite, or do not fit.
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
    # Rounded, lest equal pictures change places by the last bit of a product.
    indices_qk = np.argsort(-scores_qg.round(9), axis=1, kind="stable")[:, :k]
    return indices_qk, np.take_along_axis(scores_qg, indices_qk, axis=1)


def _rescored(query_qd: Floats, gallery_gd: Floats, columns_qc: Ints) -> Floats:
    """Cosines of each query and its own candidates, (q, c)."""
    parts = [np.zeros((0, columns_qc.shape[1]))]
    for block in _blocks(len(query_qd), columns_qc.shape[1] * gallery_gd.shape[1]):
        parts.append(np.einsum("qd,qcd->qc", query_qd[block], gallery_gd[columns_qc[block]]))
    return np.concatenate(parts)


def _named(ks: Sequence[int], hits_qk: Floats, chance_qk: Floats) -> dict[str, float]:
    found = {f"r{k}": float(value) for k, value in zip(ks, hits_qk.mean(axis=0), strict=True)}
    return found | {f"chance_r{k}": float(value) for k, value in zip(ks, chance_qk.mean(axis=0), strict=True)}


def _positives(queries: tuple[str, Array, Array], gallery: tuple[str, Array, Array]) -> Positives:
    """From keys, of which each side must have one a row."""
    for name, features, keys in (queries, gallery):
        if np.shape(keys) != np.shape(features)[:1]:
            raise JclipError(f"{len(features)} rows of {name} features need as many keys: given {np.shape(keys)}")
    return Positives.from_keys(queries[2], gallery[2])


def _fitting(query_qd: Array, gallery_gd: Array, names: tuple[str, str]) -> tuple[Floats, Floats]:
    """Rows of unit length, of one width."""
    query_qd, gallery_gd = _unit(query_qd, names[0]), _unit(gallery_gd, names[1])
    if query_qd.shape[1] != gallery_gd.shape[1]:
        raise JclipError(f"{names[0]} features are {query_qd.shape[1]} wide, {names[1]} ones {gallery_gd.shape[1]}")
    return query_qd, gallery_gd


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
