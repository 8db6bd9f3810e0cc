"""Zero-shot classification by prompts (Radford et al. 2021, section 3.1): a class is the mean of its sentences.

Axes: n pictures, c classes, p prompts, d features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import Benchmark
from jclip.evaluate.datasets.class_sets import ClassSet
from jclip.evaluate.findings import Finding, histogram
from jclip.evaluate.metrics import metrics
from jclip.evaluate.metrics.bootstrap import RESAMPLES, Interval, interval, intervals, resampled_means
from jclip.evaluate.metrics.trials import Trials, digest

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SCALE = 100.0
"""On cosines, before the softmax: fixed, whatever the model learnt, as in both papers' code."""

_CLASSES_AT_ONCE = 32


def classifier(
    encode_text: Callable[[list[str]], Array], names: Sequence[str], templates: Sequence[str]
) -> npt.NDArray[np.float32]:
    """(c, d): for each class the unit vector along the mean of its sentences' unit vectors.

    Args:
      encode_text: sentences to (n, d) features of any length.
      names: of the classes.
      templates: sentences with {} where the name belongs.

    Raises:
      JclipError: no class, or no template.
    """
    if not names or not templates:
        raise JclipError(f"{len(names)} classes and {len(templates)} prompts: give at least one of each")
    parts = []
    for start in range(0, len(names), _CLASSES_AT_ONCE):
        some = names[start : start + _CLASSES_AT_ONCE]
        text_cpd = encode_text([template.replace("{}", name) for name in some for template in templates])
        text_cpd = _unit(text_cpd.reshape(len(some), len(templates), -1).astype(np.float64))
        parts.append(_unit(text_cpd.mean(axis=1)))
    return np.concatenate(parts).astype(np.float32)


def probabilities(images_nd: Array, classes_cd: Array) -> npt.NDArray[np.float32]:
    """(n, c): softmax over the classes of 100 times the cosines."""
    return softmax(SCALE * cosines(images_nd, classes_cd))


def softmax(logits_nc: Array) -> Array:
    """(n, c): shares that add up to 1 in each row."""
    powers_nc = np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True))
    return np.asarray(powers_nc / powers_nc.sum(axis=1, keepdims=True))


def cosines(images_nd: Array, classes_cd: Array) -> npt.NDArray[np.float32]:
    """(n, c), from features of any length."""
    found: npt.NDArray[np.float32] = _unit(images_nd) @ _unit(classes_cd).T
    return found


def find(
    data: ClassSet,
    scores_nc: Array,
    probabilities_nc: Array,
    *,
    names: Sequence[str],
    language: str = "",
    variant: str = "",
    benchmark: Benchmark | None = None,
    kind: str = "classification",
    resamples: int = RESAMPLES,
) -> Finding:
    """Top-1 and top-5, mean per class, and what else the data set's table asks for.

    Args:
      data: the pictures and their classes.
      scores_nc: higher is better; compared within a picture.
      probabilities_nc: compared between pictures, for mAP and the ROC curve.
      names: of the classes, for the confusion matrix.
      language: of the prompts.
      variant: their name, where it is not the language.
      benchmark: which figure is reported.
      kind: of the finding.
      resamples: of the bootstrap; 0 for no intervals.

    Raises:
      JclipError: features that are not finite, or a metric that these data cannot have.
    """
    broken = int((~np.isfinite(scores_nc)).any(axis=1).sum())
    if broken:
        raise JclipError(
            f"{broken} of {len(scores_nc)} pictures have scores that are not finite: the model has diverged"
        )
    classes = len(data.keys)
    hits_nk = metrics.top_hits(scores_nc, data.truth_nc, (1, 5))
    figures = {"accuracy": float(hits_nk[:, 0].mean())}
    if classes > 5:
        figures["top5"] = float(hits_nk[:, 1].mean())
    if data.single:
        figures["mean_per_class"] = metrics.mean_per_class(hits_nk[:, 0], data.classes_n)
    if not data.single or (benchmark and benchmark.metric == "map11"):
        figures["map11"] = metrics.map_11_points(probabilities_nc, data.truth_nc)
    if classes == 2 and data.single:
        figures["roc_auc"] = metrics.roc_auc(probabilities_nc[:, 1], data.classes_n == 1)
    best_n, right_n = scores_nc.max(axis=1), hits_nk[:, 0] > 0
    chance_k = [min(1.0, k * float(data.truth_nc.sum(axis=1).mean()) / classes) for k in (1, 5)]
    figures |= {"chance_accuracy": chance_k[0]} | ({"chance_top5": chance_k[1]} if classes > 5 else {})
    return Finding(
        kind=kind,
        dataset=benchmark.title if benchmark else data.name,
        language=language,
        figures=figures,
        intervals=_intervals(hits_nk[:, : 1 + (classes > 5)], data, resamples) if resamples else {},
        main=benchmark.metric if benchmark else "accuracy",
        counts={
            "pictures": len(data.pictures),
            "classes": classes,
            **({"left_out": len(data.left_out)} if data.left_out else {}),
        },
        note=data.note,
        confusion=tuple(map(tuple, metrics.confusion(scores_nc, data.classes_n).tolist())) if classes <= 200 else (),
        classes=tuple(names) if classes <= 200 else (),
        scores=histogram({"right": best_n[right_n], "wrong": best_n[~right_n]}),
        variant=variant if variant != language else "",
        trials=_trials(hits_nk[:, : 1 + (classes > 5)], data) if resamples else (),
    )


def _trials(hits_nk: Floats, data: ClassSet) -> tuple[Trials, ...]:
    names, columns = ["accuracy", "top5"][: hits_nk.shape[1]], list(hits_nk.T)
    if data.single:
        # Weighted so that their mean is the mean per class.
        counts_n = np.bincount(data.classes_n)[data.classes_n]
        seen = len(np.unique(data.classes_n))
        names, columns = [*names, "mean_per_class"], [*columns, hits_nk[:, 0] * len(hits_nk) / (seen * counts_n)]
    return (Trials.pack(names, digest(data.truth_nc), np.stack(columns, axis=1)),)


def _intervals(hits_nk: Floats, data: ClassSet, resamples: int) -> dict[str, Interval]:
    found = intervals(["accuracy", "top5"][: hits_nk.shape[1]], resampled_means(hits_nk, resamples=resamples))
    if data.single and len(data.keys) <= 200:
        # Of each class its hits and its pictures, in the same draws.
        own_nc = data.truth_nc.astype(np.float64)
        means = resampled_means(np.concatenate([own_nc * hits_nk[:, :1], own_nc], axis=1), resamples=resamples)
        hits_rc, counts_rc = np.split(means, 2, axis=1)
        shares_rc = np.divide(hits_rc, counts_rc, out=np.full(hits_rc.shape, np.nan), where=counts_rc > 0)
        found["mean_per_class"] = interval(np.nanmean(shares_rc, axis=1))
    return found


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
