"""Evaluates retrieval between images and captions.

Axes: n images, m texts, d features, r resamples, p pairs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jclip.evaluate.datasets.opening import RetrievalTests, open_retrieval
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.metrics.bootstrap import RESAMPLES, Interval, interval, intervals, resampled_means
from jclip.evaluate.metrics.recall import QueryHits, both_ways
from jclip.evaluate.metrics.trials import Trials, digest
from jclip.evaluate.report.elements import Section
from jclip.evaluate.report.galleries import retrieved
from jclip.evaluate.results import Histogram, Result, Results, histogram
from jclip.evaluate.tasks.cn_clip import write_cn_clip
from jclip.evaluate.tasks.evaluation import Encodes, Evaluation, Progress

Features = npt.NDArray[np.float32]

_SAMPLE = 20_000  # maximum number of pairs in the distribution of cosines
_GALLERIES = 8  # maximum number on a page; those of 36 languages would make it too large to open
_RETRIEVED = "A few captions, drawn at random, and the best images for each; a green frame marks a right one."


class Encoded(NamedTuple):
    """A task and the features of all its images and captions."""

    task: RetrievalTask
    image_nd: Features
    text_md: Features


def retrieval(
    model: Encodes,
    data: str | Path,
    *,
    protocol: str = "",
    split: str = "",
    languages: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates a model on images with captions, as `jclip eval retrieval` does.

        model = jclip.load("bundles/chinese-clip")
        evaluation = jclip.evaluate.retrieval(model, "data/muge", protocol="muge")
        print(evaluation.results.tests[0].figures["mean_recall"])

    Args:
      model: model that encodes images and texts.
      data: file or folder, as `jclip eval retrieval` reads it.
      protocol: name of a published test, such as "muge"; "" for none.
      split: split of a folder; "" for the protocol's own, or "test".
      languages: languages of the captions; empty for all that the protocol and the folder have.
      resamples: number of bootstrap resamples; 0 for no intervals.

    Raises:
      JclipError: the data cannot be read, or are not the protocol's; no query has a positive; or features are not
        finite.
    """
    tests = open_retrieval(Path(data), protocol, split, languages)
    encoded = encode_tasks(tests.tasks, model)
    settings = {"data": str(data), "split": tests.split, "protocol": protocol}
    return evaluate(tests, encoded, settings=settings, resamples=resamples)


def evaluate(
    tests: RetrievalTests,
    encoded: Iterable[Encoded],
    *,
    model: str = "model",
    settings: Mapping[str, str],
    resamples: int = RESAMPLES,
    features_too: bool = False,
    progress: Progress = lambda words: None,
) -> Evaluation:
    """Scores encoded tasks. A task with secret positives gets predictions, but no figures.

    `model` and `settings` are for the report. With `features_too`, the evaluation's folder holds the features too.
    """
    found: list[Encoded] = []
    for one in encoded:
        found.append(one)
        progress(f"encoding: {len(found)} of {len(tests.tasks)} done")
    progress("scoring")
    scored = [one for one in found if one.task.has_answers]
    results = tuple(score(one, note=tests.note, resamples=resamples) for one in scored)

    def sections() -> list[Section]:
        galleries = [retrieved(*one) for one in scored[:_GALLERIES]]
        return [Section("Retrieved images", _RETRIEVED, galleries)] if galleries else []

    def files(folder: Path) -> None:
        for one in found:
            write_cn_clip(folder, tests.file_name(one.task), *one, features_too=features_too)

    return Evaluation(Results(model, results, dict(settings)), sections, files)


def encode_tasks(tasks: Sequence[RetrievalTask], model: Encodes) -> Iterator[Encoded]:
    """Yields each task with its features. Tasks that share their images object share its features."""
    known: dict[int, Features] = {}
    for task in tasks:
        if id(task.pictures) not in known:
            known[id(task.pictures)] = model.encode_image(task.pictures)
        yield Encoded(task, known[id(task.pictures)], model.encode_text(task.captions))


def score(encoded: Encoded, *, note: str = "", resamples: int = RESAMPLES) -> Result:
    """Computes recalls, and their intervals unless `resamples` is 0.

    Raises JclipError if features are not finite, shapes do not fit, or no query has a positive.
    """
    task, image_nd, text_md = encoded
    hits = task.hits(image_nd, text_md)
    counts = {"pictures": len(task.pictures), "captions": len(task.captions)}
    counts |= {f"{way}_queries": len(one.asked_q) for way, one in hits.items()}
    if task.counted and task.counted.how == "joined":
        counts |= {"joined_pictures": task.counted.pictures, "joined_captions": task.counted.captions}
    counts |= {"left_out": task.left_out} if task.left_out else {}
    return Result(
        kind="retrieval",
        dataset=task.name,
        language=task.language,
        figures=both_ways(hits),
        intervals=_intervals(hits, resamples) if resamples else {},
        main="mean_recall",
        counts=counts,
        counting=task.counted.how if task.counted else "",
        note=" ".join(filter(None, (note, task.note))),
        scores=_distribution(encoded),
        trials=_trials(task, hits) if resamples else (),
    )


def _trials(task: RetrievalTask, hits: Mapping[str, QueryHits]) -> tuple[Trials, ...]:
    asked = digest(task.captions, task.positives.pairs_p2, *(one.asked_q for one in hits.values()))
    return tuple(Trials.pack([f"{way}_r{k}" for k in one.ks], asked, one.hits_qk) for way, one in hits.items())


def _intervals(hits: Mapping[str, QueryHits], resamples: int) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    means = []
    for seed, (way, one) in enumerate(hits.items()):
        means_rk = resampled_means(one.hits_qk, seed=seed, resamples=resamples)
        found |= intervals([f"{way}_r{k}" for k in one.ks], means_rk)
        means.append(means_rk.mean(axis=1))
    return found | {"mean_recall": interval(np.mean(means, axis=0))}


def _distribution(encoded: Encoded) -> Histogram:
    """Returns the cosines of positive pairs and of random pairs, as shares of each."""
    draw = np.random.default_rng(0)
    pairs_p2 = encoded.task.positives.pairs_p2
    positive_p2 = pairs_p2[draw.permutation(len(pairs_p2))[:_SAMPLE]]
    image_nd, text_md = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in encoded[1:])
    random_p2 = np.stack([draw.integers(0, len(one), _SAMPLE) for one in (text_md, image_nd)], axis=1)
    cosines = {
        name: np.einsum("pd,pd->p", text_md[rows_p2[:, 0]], image_nd[rows_p2[:, 1]])
        for name, rows_p2 in (("belong together", positive_p2), ("at random", random_p2))
    }
    return histogram(cosines)
