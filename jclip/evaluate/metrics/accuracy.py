"""Metrics of classification: top-k, mean per class, 11-point mAP, area under the ROC curve.

Ties: top-k counts the expected hit over random orders of equal scores; mAP and ROC treat equal scores as one cut.

Axes: n images, c classes, k cuts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate.metrics.recall import expected_hits

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_BLOCK = 2**22


def top_hits(scores_nc: Array, truth_nc: Array, ks: Sequence[int]) -> Floats:
    """Returns (n, k) probabilities that a true class of an image is among its k best."""
    size = max(1, _BLOCK // max(1, scores_nc.shape[1]))
    blocks = [slice(start, start + size) for start in range(0, len(scores_nc), size)]
    hits = [expected_hits(np.asarray(scores_nc[rows], np.float64), truth_nc[rows], ks) for rows in blocks]
    return np.concatenate(hits) if hits else np.zeros((0, len(ks)))


def mean_per_class(hits_n: Array, classes_n: Array) -> float:
    """Returns the mean over classes of the share of hits in each; classes without an image are left out."""
    counts_c = np.bincount(classes_n)
    hits_c = np.bincount(classes_n, weights=hits_n)
    return float((hits_c[counts_c > 0] / counts_c[counts_c > 0]).mean())


def map_11_points(scores_nc: Array, truth_nc: Array) -> float:
    """Returns the mean over classes of 11-point average precision (Everingham et al. 2010, VOC2007, section 4.2).

    The precision at each recall 0, 0.1, ..., 1 is the maximum at that recall or higher. Raises JclipError if a class
    has no image.
    """
    empty = np.flatnonzero(~truth_nc.any(axis=0))
    if len(empty):
        raise JclipError(f"no image shows class {empty[0]} (counted from 0): mAP needs an image of each class")
    return float(np.mean([_average_precision(*pair) for pair in zip(scores_nc.T, truth_nc.T, strict=True)]))


def _average_precision(scores_n: Array, truth_n: Array) -> float:
    order_n = np.argsort(-scores_n, kind="stable")
    found_n = np.cumsum(truth_n[order_n])
    # Ties count together: precision and recall are read where the score changes.
    last_n = np.append(np.diff(scores_n[order_n]) != 0, True)
    precision_t = found_n[last_n] / (np.flatnonzero(last_n) + 1)
    recall_t = found_n[last_n] / found_n[-1]
    reached = [precision_t[recall_t >= point / 10 - 1e-12] for point in range(11)]
    return float(np.mean([some.max(initial=0) for some in reached]))


def roc_auc(scores_n: Array, truth_n: Array) -> float:
    """Returns the probability that a positive scores above a negative; ties count half.

    Raises JclipError if there are only positives, or only negatives.
    """
    right, wrong = int(truth_n.sum()), int((~truth_n).sum())
    if not right or not wrong:
        raise JclipError("all images are of one class: the area under the ROC curve needs images of both")
    _, place_n, count_t = np.unique(scores_n, return_inverse=True, return_counts=True)
    rank_n = (np.cumsum(count_t) - (count_t - 1) / 2)[place_n]  # equal scores have the mean of their ranks
    return float((rank_n[truth_n].sum() - right * (right + 1) / 2) / (right * wrong))


def confusion(scores_nc: Array, classes_n: Array) -> npt.NDArray[np.int64]:
    """Returns (c, c) counts of true class by predicted class; ties go to the first."""
    count = scores_nc.shape[1]
    codes_n = classes_n * count + scores_nc.argmax(axis=1)
    return np.bincount(codes_n, minlength=count * count).reshape(count, count)
