"""Linear probes on a model's frozen image features, trained on all training images or on a few of each class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jclip.evaluate.datasets.opening import ProbeSplits, open_probe
from jclip.evaluate.metrics import logistic_regression
from jclip.evaluate.metrics.bootstrap import RESAMPLES
from jclip.evaluate.metrics.zero_shot import softmax
from jclip.evaluate.report.galleries import classified
from jclip.evaluate.results import Result, Results
from jclip.evaluate.tasks.classification import score as score_classification
from jclip.evaluate.tasks.evaluation import Encodes, Evaluation, Progress

Shots = int | None
"""Training images of each class; None for all."""


class Probed(NamedTuple):
    """Figures of one number of shots, and the (n, c) logits of the test images by the first probe."""

    result: Result
    logits_nc: npt.NDArray[np.float64]


def probe(
    model: Encodes,
    data: str | Path,
    *,
    dataset: str = "",
    shots: Sequence[Shots] = (None,),
    seeds: int = 3,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates linear probes on a model's image features, as `jclip eval probe` does.

        model = jclip.load("bundles/altclip")
        evaluation = jclip.evaluate.probe(model, "data/pets", shots=[1, 4, 16, None])
        print([test.figures["accuracy"] for test in evaluation.results.tests])

    Args:
      model: model that encodes images.
      data: folder with the splits train and test, and perhaps valid.
      dataset: name of a known data set, such as "cifar-100"; decides metric and size. "" for none.
      shots: training images of each class; None for all.
      seeds: number of draws of a few-shot probe; its figures are means over them.
      resamples: number of bootstrap resamples; 0 for no intervals.

    Raises:
      JclipError: the data cannot be read, a class has fewer images than shots, or features are not finite.
    """
    splits = open_probe(Path(data), dataset)
    settings = {"data": str(data), "dataset": dataset, "shots": ",".join(str(one or "all") for one in shots)}
    return as_evaluation(
        splits, list(evaluate(splits, model, shots, seeds=seeds, resamples=resamples)), settings=settings
    )


def evaluate(
    splits: ProbeSplits,
    model: Encodes,
    shots: Sequence[Shots],
    *,
    seeds: int = 3,
    resamples: int = RESAMPLES,
    progress: Progress = lambda words: None,
) -> Iterator[Probed]:
    """Yields the figures of each number of shots."""
    features = {name: model.encode_image(one.pictures) for name, one in splits.splits.items()}
    for count in shots:
        progress(f"fitting: {count or 'all'} images a class")
        yield score(splits, features, count, seeds=seeds, resamples=resamples)


def as_evaluation(
    splits: ProbeSplits, found: Sequence[Probed], *, model: str = "model", settings: Mapping[str, str]
) -> Evaluation:
    """Returns the evaluation of all numbers of shots, with an image gallery of the last."""
    results = Results(model, tuple(one.result for one in found), dict(settings))
    test, last = splits.splits["test"], found[-1]
    return Evaluation(results, lambda: [classified(test, last.logits_nc, splits.names, "", last.result.variant)])


def score(
    splits: ProbeSplits,
    features: Mapping[str, npt.NDArray[np.float32]],
    shots: Shots,
    *,
    seeds: int = 3,
    resamples: int = RESAMPLES,
) -> Probed:
    """Fits probes on the image features of the splits and computes their figures on the test split.

    A few-shot probe holds out some of its shots instead of using split valid. Its figures are means over `seeds` draws,
    without intervals. Raises JclipError if a class has fewer images than shots, or features are not finite.

    Args:
      splits: images and classes of the splits.
      features: (n, d) image features by split.
      shots: training images of each class; None for all.
    """
    train, test = splits.splits["train"], splits.splits["test"]
    valid = (features["valid"], splits.splits["valid"].classes_n) if "valid" in splits.splits else None
    found: list[Probed] = []
    for seed in range(1 if shots is None else seeds):
        rows = slice(None) if shots is None else logistic_regression.draw_shots(train.classes_n, shots, seed)
        some = (features["train"][rows], train.classes_n[rows])
        learned = logistic_regression.fit_probe(some, valid if shots is None else None, len(train.keys))
        logits_nc = learned.logits(features["test"])
        result = score_classification(
            test,
            logits_nc,
            softmax(logits_nc),
            names=splits.names,
            benchmark=splits.benchmark,
            kind="probe",
            resamples=resamples if shots is None else 0,
        )
        found.append(Probed(result, logits_nc))
    results = [one.result for one in found]
    shown = results[0]
    figures = {name: float(np.mean([one.figures[name] for one in results])) for name in shown.figures}
    if len(results) > 1:
        shown = replace(shown, confusion=(), scores=None)  # figures are means, and these are of one draw
        figures["accuracy_std"] = float(np.std([one.figures["accuracy"] for one in results], ddof=1))
    left_out = sum(len(one.left_out) for one in splits.splits.values())
    counts = {**shown.counts, "draws": len(results)}
    counts |= {name: count for name, count in (("left_out", left_out), ("shared", splits.shared)) if count}
    variant = "all" if shots is None else f"{shots} a class"
    return Probed(replace(shown, variant=variant, figures=figures, counts=counts, note=splits.note), found[0].logits_nc)
