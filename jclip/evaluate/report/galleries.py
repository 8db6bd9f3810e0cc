"""Galleries of a report: images retrieved by a few queries, and images assigned to a few classes."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from jclip.evaluate.datasets.classes import ClassSet
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.languages import LANGUAGE_NAMES
from jclip.evaluate.metrics.recall import topk
from jclip.evaluate.report.elements import Answer, Gallery, Query, Section
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Picture, Preprocessing, to_array

_QUERIES, _SHOWN = 6, 6
_FRAMED = Preprocessing(size=96, mean=CLIP_MEAN, std=CLIP_STD, resize="crop", background=(255, 255, 255))


def thumbnail(picture: Picture, name: str = "") -> bytes:
    """Returns a small PNG file of an image."""
    file = io.BytesIO()
    Image.fromarray(to_array(_FRAMED, picture, name)).save(file, "PNG")
    return file.getvalue()


def retrieved(task: RetrievalTask, image_nd: np.ndarray, text_md: np.ndarray) -> Gallery:
    """Draws captions at random and shows the best images for each."""
    asked = np.flatnonzero(task.positives.counts_q)
    drawn = np.sort(np.random.default_rng(0).permutation(asked)[:_QUERIES])
    found_qk, _ = topk(text_md[drawn], image_nd, min(_SHOWN, len(image_nd)))
    name_of = getattr(task.pictures, "name_of", lambda number: "")
    ids = range(len(image_nd)) if task.image_ids is None else task.image_ids
    queries = []
    for row, best_k in zip(drawn.tolist(), found_qk, strict=True):
        right_k = task.positives.of(np.array([row]), best_k[None])[0]
        places = [int(place) for place in best_k]
        answers = [
            Answer(thumbnail(task.pictures[place], name_of(place)), bool(right), f"image {ids[place]}")
            for place, right in zip(places, right_k, strict=True)
        ]
        first = np.flatnonzero(right_k)
        queries.append(
            Query(
                task.captions[row],
                task.language,
                LANGUAGE_NAMES.get(task.language, task.language or "caption"),
                answers,
                rank=int(first[0]) + 1 if len(first) else None,
            )
        )
    return Gallery(f"{task.name}{f', {task.language}' if task.language else ''}", queries)


def classified(data: ClassSet, scores_nc: np.ndarray, names: Sequence[str], language: str, title: str) -> Section:
    """Draws classes at random and shows the most confident images of each predicted class, right or wrong."""
    draw = np.random.default_rng(0)
    name_of = getattr(data.pictures, "name_of", lambda number: "")
    best_n = scores_nc.argmax(axis=1)
    queries = []
    for number in np.sort(draw.permutation(len(names))[:_QUERIES]).tolist():
        rows = np.flatnonzero(best_n == number)
        rows = rows[np.argsort(-scores_nc[rows, number], kind="stable")][:_SHOWN]
        answers = [
            Answer(
                thumbnail(data.pictures[row], name_of(row)),
                bool(data.truth_nc[row, number]),
                names[number if data.truth_nc[row, number] else int(data.truth_nc[row].argmax())],
            )
            for row in rows.tolist()
        ]
        queries.append(Query(names[number], language, LANGUAGE_NAMES.get(language, language or "class"), answers))
    found = Gallery(f"{data.name}, {title}", queries)
    return Section(f"Images by predicted class, {title}", _CLASSIFIED, [found])


_CLASSIFIED = """Some classes, drawn at random, and the images most confidently assigned to them. A green frame \
marks a right one."""
