"""A retrieval task and features in, a finding and cn_clip's files out.

Axes: n images, m texts, d features, q queries, k cuts.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate import features
from jclip.evaluate.datasets.tasks import RetrievalTask
from jclip.evaluate.findings import Finding, Histogram, histogram
from jclip.evaluate.metrics.bootstrap import RESAMPLES, Interval, interval, intervals, resampled_means
from jclip.evaluate.metrics.retrieval import Judged, both_ways, topk
from jclip.evaluate.metrics.trials import Trials, digest
from jclip.images.preprocess import Picture

Features = npt.NDArray[np.float32]

_SAMPLE = 20_000
_FILES = {"image": "{}_imgs.img_feat.jsonl", "text": "{}_texts.txt_feat.jsonl"}


def encoded(
    tasks: Sequence[RetrievalTask],
    encode_images: Callable[[Sequence[Picture] | np.ndarray], Features],
    encode_texts: Callable[[Sequence[str]], Features],
) -> Iterator[tuple[RetrievalTask, Features, Features]]:
    """(task, images_nd, texts_md) of each; tasks that share one object for their pictures share its features."""
    known: dict[int, Features] = {}
    for task in tasks:
        if id(task.pictures) not in known:
            known[id(task.pictures)] = encode_images(task.pictures)
        yield task, known[id(task.pictures)], encode_texts(task.captions)


def has_answers(task: RetrievalTask) -> bool:
    """Whether anything can be scored: a test whose answers are secret has pictures and captions alone."""
    return bool(len(task.positives.pairs_p2))


def find(
    task: RetrievalTask, images_nd: Features, texts_md: Features, *, note: str = "", resamples: int = RESAMPLES
) -> Finding:
    """Recalls with their intervals.

    Args:
      task: what belongs together.
      images_nd, texts_md: features of all its pictures and captions.
      note: of the protocol.
      resamples: of the bootstrap; 0 for no intervals, and for nothing to compare query by query.

    Raises:
      JclipError: as `retrieval.judge`.
    """
    judged = task.judge(images_nd, texts_md)
    figures = both_ways(judged)
    counts = {"pictures": len(task.pictures), "captions": len(task.captions)}
    counts |= {f"{way}_queries": len(one.asked_q) for way, one in judged.items()}
    if task.counted and task.counted.how == "joined":
        counts |= {"joined_pictures": task.counted.pictures, "joined_captions": task.counted.captions}
    counts |= {"left_out": task.left_out} if task.left_out else {}
    return Finding(
        kind="retrieval",
        dataset=task.name,
        language=task.language,
        figures=figures,
        intervals=_intervals(judged, resamples) if resamples else {},
        main="mean_recall",
        counts=counts,
        counting=task.counted.how if task.counted else "",
        note=" ".join(filter(None, (note, task.note))),
        scores=_distribution(task, images_nd, texts_md),
        trials=_trials(task, judged) if resamples else (),
    )


def _trials(task: RetrievalTask, judged: dict[str, Judged]) -> tuple[Trials, ...]:
    asked = digest(task.captions, task.positives.pairs_p2, *(one.asked_q for one in judged.values()))
    return tuple(Trials.pack([f"{way}_r{k}" for k in one.ks], asked, one.hits_qk) for way, one in judged.items())


def _intervals(judged: dict[str, Judged], resamples: int) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    means = []
    for seed, (way, one) in enumerate(judged.items()):
        means_rk = resampled_means(one.hits_qk, seed=seed, resamples=resamples)
        found |= intervals([f"{way}_r{k}" for k in one.ks], means_rk)
        means.append(means_rk.mean(axis=1))
    return found | {"mean_recall": interval(np.mean(means, axis=0))}


def _distribution(task: RetrievalTask, images_nd: Features, texts_md: Features) -> Histogram:
    """Cosines of pairs that belong together, and of pairs drawn at random, as shares of each."""
    draw = np.random.default_rng(0)
    pairs_p2 = task.positives.pairs_p2
    own_p2 = pairs_p2[draw.permutation(len(pairs_p2))[:_SAMPLE]]
    others_p2 = np.stack([draw.integers(0, len(one), _SAMPLE) for one in (texts_md, images_nd)], axis=1)
    images_nd, texts_md = (_unit(one) for one in (images_nd, texts_md))
    cosines = {
        name: np.einsum("pd,pd->p", texts_md[rows_p2[:, 0]], images_nd[rows_p2[:, 1]])
        for name, rows_p2 in (("belong together", own_p2), ("at random", others_p2))
    }
    return histogram(cosines)


def _unit(rows: Features) -> Features:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def write_cn_clip(
    folder: Path, name: str, task: RetrievalTask, images_nd: Features, texts_md: Features, *, features_too: bool
) -> None:
    """Writes the ten best of each query, the answers and the features, as cn_clip's programs write and read them.

    Args:
      folder: that is there.
      name: the split: NAME_texts.jsonl and so on.
      task: its ids become those of the files, row numbers where it has none. Pictures and captions that were joined
        have one line, under the number of the first: so cn_clip's programs find the same figures in these files.
      images_nd, texts_md: of all its pictures and captions.
      features_too: some 10 kB for each picture and caption.
    """
    ids = _ids(task)
    rows = {"image": images_nd, "text": texts_md}
    for kind, pattern in _FILES.items() if features_too else ():
        features.write_features(folder / pattern.format(name), kind, ids[kind], rows[kind])  # type: ignore[arg-type]
    answers_p2 = task.positives.pairs_p2
    for kind, other, column, ending in (("text", "image", 0, ""), ("image", "text", 1, ".tr")):
        found_qk, _ = topk(rows[kind], rows[other], 10)
        best = zip(ids[kind], np.asarray(ids[other])[found_qk].tolist(), strict=True)
        features.write_predictions(folder / f"{name}_predictions{ending}.jsonl", kind, best)  # type: ignore[arg-type]
        # Whoever has no answer is no query: cn_clip counts a text without pictures as a miss.
        asked: dict[int, list[int]] = {}
        for pair in answers_p2[np.argsort(answers_p2[:, column], kind="stable")].tolist():
            asked.setdefault(ids[kind][pair[column]], []).append(ids[other][pair[1 - column]])
        features.write_predictions(folder / f"{name}_answers{ending}.jsonl", kind, asked.items())  # type: ignore[arg-type]


def read_cn_clip_features(folder: Path, name: str, task: RetrievalTask) -> tuple[Features, Features]:
    """(images_nd, texts_md) of a task, from NAME_imgs.img_feat.jsonl and NAME_texts.txt_feat.jsonl.

    Raises:
      JclipError: a file is missing or damaged, or lacks a picture or a caption.
    """
    found = []
    for kind, ids in _ids(task).items():
        file = folder / _FILES[kind].format(name)
        known, rows = features.read_features(file, kind)  # type: ignore[arg-type]
        at = {number: row for row, number in enumerate(known.tolist())}
        lost = next((number for number in ids if number not in at), None)
        if lost is not None:
            raise JclipError(f"{file} has no feature of {kind}_id {lost}: extract the features of all again")
        found.append(rows[[at[number] for number in ids]])
    return found[0], found[1]


def _ids(task: RetrievalTask) -> dict[str, list[int]]:
    return {
        "image": list(task.image_ids if task.image_ids is not None else range(len(task.pictures))),
        "text": list(task.text_ids if task.text_ids is not None else range(len(task.captions))),
    }
