"""Zero-shot classification of the images of a data set.

Axes: n images, c classes, k cuts, r resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jclip import rules
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import Benchmark, submission
from jclip.evaluate.datasets.classes import ClassSet
from jclip.evaluate.datasets.opening import ClassificationTests, Ensemble, open_classification
from jclip.evaluate.metrics import accuracy
from jclip.evaluate.metrics.bootstrap import RESAMPLES, Interval, interval, intervals, resampled_means
from jclip.evaluate.metrics.trials import Trials, digest
from jclip.evaluate.metrics.zero_shot import classifier, cosines, probabilities
from jclip.evaluate.prompts import load_prompts
from jclip.evaluate.report.galleries import classified
from jclip.evaluate.results import Result, Results, histogram
from jclip.evaluate.tasks.evaluation import Encodes, Evaluation, Progress
from jclip.images.preprocess import Picture
from jclip.plain import as_json

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_LARGEST_CONFUSION = 200  # classes


class Classified(NamedTuple):
    """Scores of one prompt ensemble."""

    ensemble: Ensemble
    scores_nc: Array  # cosines
    probabilities_nc: Array
    result: Result


def zero_shot(
    model: Encodes, pictures: Sequence[Picture] | np.ndarray, names: Sequence[str], prompts: str = "en"
) -> npt.NDArray[np.float32]:
    """Returns the (n, c) probabilities of classes by name.

        model = jclip.load("bundles/chinese-clip")
        jclip.evaluate.zero_shot(model, ["a.jpg", "b.jpg"], ["猫", "狗"], prompts="zh")

    Args:
      model: model that encodes images and texts.
      pictures: files, bytes or arrays, as for `Model.encode_image`.
      names: class names.
      prompts: a language, or another name that `load_prompts` knows.

    Raises:
      JclipError: no class, unknown prompts, or images that cannot be read.
    """
    return probabilities(
        model.encode_image(pictures), classifier(model.encode_text, names, load_prompts(prompts).templates)
    )


def classification(
    model: Encodes,
    data: str | Path,
    *,
    dataset: str = "",
    prompts: Sequence[str] = (),
    classes: str = "",
    split: str = "test",
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates zero-shot classification on images with classes, as `jclip eval classify` does.

        model = jclip.load("bundles/altclip")
        evaluation = jclip.evaluate.classification(model, "data/cifar-100", dataset="cifar-100", prompts=["zh", "en"])
        evaluation.write("results/cifar-100")

    Args:
      model: model that encodes images and texts.
      data: folder, as `jclip eval classify` reads it.
      dataset: name of a known data set, such as "cifar-100"; decides metric, size and prompts. "" for none.
      prompts: names of prompt ensembles; by default one in the language of the class names.
      classes: file of class names, or "cn_clip" or "open_clip" for ImageNet's; "" for those beside the data.
      split: name of the split, if the folder has splits.
      resamples: number of bootstrap resamples; 0 for no intervals.

    Raises:
      JclipError: the data cannot be read, or are not the data set's; or features are not finite.
    """
    tests = open_classification(Path(data), dataset, prompts, classes, split)
    settings = {"data": tests.data.name, "dataset": dataset, "prompts": tests.title}
    return as_evaluation(tests, list(evaluate(tests, model, resamples=resamples)), settings=settings)


def evaluate(
    tests: ClassificationTests, model: Encodes, *, resamples: int = RESAMPLES, progress: Progress = lambda words: None
) -> Iterator[Classified]:
    """Yields the scores and figures of each prompt ensemble."""
    image_nd = model.encode_image(tests.data.pictures)
    for one in tests.ensembles:
        progress(f"encoding the sentences: {one.title}")
        classes_cd = classifier(model.encode_text, one.names, one.templates)
        scores_nc, probabilities_nc = cosines(image_nd, classes_cd), probabilities(image_nd, classes_cd)
        result = score(
            tests.data,
            scores_nc,
            probabilities_nc,
            names=one.names,
            language=one.language,
            variant=one.title,
            benchmark=tests.benchmark,
            resamples=resamples,
        )
        yield Classified(one, scores_nc, probabilities_nc, result)


def as_evaluation(
    tests: ClassificationTests, found: Sequence[Classified], *, model: str = "model", settings: Mapping[str, str]
) -> Evaluation:
    """Returns the evaluation of all prompt ensembles."""

    def section(one: Classified) -> Any:
        return classified(tests.data, one.scores_nc, one.ensemble.names, one.ensemble.language, one.ensemble.title)

    results = Results(model, tuple(one.result for one in found), dict(settings))
    return Evaluation(results, lambda: [section(one) for one in found])


def write_submissions(
    found: Sequence[Classified], folder: Path, dataset: str, name: str, params: dict[str, Any], order: list[int] | None
) -> None:
    """Writes ELEVATER's submission of each prompt ensemble: DATASET.json, or DATASET.PROMPTS.json if there are several.

    Like cn_clip, counts the projection to the image tower. The other arguments are as in `submission`.
    """
    count = {path: leaf.size for path, leaf in rules.paths_of(params).items()}
    image = sum(size for path, size in count.items() if path.startswith("image/"))
    for one in found:
        sizes = {"parameters": sum(count.values()), "image_parameters": image}
        made = submission(one.probabilities_nc, model=name, dataset=dataset, order=order, **sizes)
        ending = f".{one.ensemble.title}" if len(found) > 1 else ""
        (folder / f"{dataset}{ending}.json").write_text(as_json(made), encoding="utf-8")


def score(
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
) -> Result:
    """Computes top-1 and top-5 accuracy, the mean per class, and the other metrics of the data set.

    Raises JclipError if scores are not finite, or a metric is not defined on these data.

    Args:
      data: the images and their classes.
      scores_nc: higher is better; compared within an image.
      probabilities_nc: compared between images, for mAP and the ROC curve.
      names: class names, for the confusion matrix.
      language, variant: language and name of the prompts.
      benchmark: the data set, which decides the headline metric.
      kind: "classification" or "probe".
      resamples: number of bootstrap resamples; 0 for no intervals.
    """
    broken = int((~np.isfinite(scores_nc)).any(axis=1).sum())
    if broken:
        raise JclipError(f"{broken} of {len(scores_nc)} images have scores that are not finite: the model has diverged")
    classes = len(data.keys)
    hits_nk = accuracy.top_hits(scores_nc, data.truth_nc, (1, 5))[:, : 1 + (classes > 5)]
    figures = dict(zip(("accuracy", "top5"), hits_nk.mean(axis=0).tolist(), strict=False))
    if data.single:
        figures["mean_per_class"] = accuracy.mean_per_class(hits_nk[:, 0], data.classes_n)
    if not data.single or (benchmark and benchmark.metric == "map11"):
        figures["map11"] = accuracy.map_11_points(probabilities_nc, data.truth_nc)
    if classes == 2 and data.single:
        figures["roc_auc"] = accuracy.roc_auc(probabilities_nc[:, 1], data.classes_n == 1)
    best_n, right_n = scores_nc.max(axis=1), hits_nk[:, 0] > 0
    true_classes = float(data.truth_nc.sum(axis=1).mean())
    for name, k in (("accuracy", 1), ("top5", 5)):
        if name in figures:
            figures[f"chance_{name}"] = min(1.0, k * true_classes / classes)
    left_out = {"left_out": len(data.left_out)} if data.left_out else {}
    few = classes <= _LARGEST_CONFUSION
    return Result(
        kind=kind,
        dataset=benchmark.title if benchmark else data.name,
        language=language,
        figures=figures,
        intervals=_intervals(hits_nk, data, resamples) if resamples else {},
        main=benchmark.metric if benchmark else "accuracy",
        counts={"pictures": len(data.pictures), "classes": classes, **left_out},
        note=data.note,
        confusion=tuple(map(tuple, accuracy.confusion(scores_nc, data.classes_n).tolist())) if few else (),
        classes=tuple(names) if few else (),
        scores=histogram({"right": best_n[right_n], "wrong": best_n[~right_n]}),
        variant=variant if variant != language else "",
        trials=_trials(hits_nk, data) if resamples else (),
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
    if data.single and len(data.keys) <= _LARGEST_CONFUSION:
        # Hits and images of each class, in the same draws.
        own_nc = data.truth_nc.astype(np.float64)
        means = resampled_means(np.concatenate([own_nc * hits_nk[:, :1], own_nc], axis=1), resamples=resamples)
        hits_rc, counts_rc = np.split(means, 2, axis=1)
        shares_rc = np.divide(hits_rc, counts_rc, out=np.full(hits_rc.shape, np.nan), where=counts_rc > 0)
        found["mean_per_class"] = interval(np.nanmean(shares_rc, axis=1))
    return found
