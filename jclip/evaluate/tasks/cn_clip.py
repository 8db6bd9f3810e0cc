"""Writes a retrieval task in cn_clip's files, and reads its features.

SPLIT_imgs.img_feat.jsonl, SPLIT_texts.txt_feat.jsonl    features
SPLIT_predictions.jsonl, SPLIT_answers.jsonl             text to image
SPLIT_predictions.tr.jsonl, SPLIT_answers.tr.jsonl       image to text
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate import cn_clip_files
from jclip.evaluate.cn_clip_files import Modality
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.metrics.recall import topk

Features = npt.NDArray[np.float32]

_FILES: dict[Modality, str] = {"image": "{}_imgs.img_feat.jsonl", "text": "{}_texts.txt_feat.jsonl"}
_DIRECTIONS: tuple[tuple[Modality, Modality, int, str], ...] = (("text", "image", 0, ""), ("image", "text", 1, ".tr"))


def write_cn_clip(
    folder: Path, name: str, task: RetrievalTask, image_nd: Features, text_md: Features, *, features_too: bool
) -> None:
    """Writes the ten best answers of each query, the positives and the features, as cn_clip's programs do.

    A deduplicated image or caption has one line, under the id of the first, so cn_clip's programs compute the same
    figures from these files. Tasks without ids use row numbers.

    Args:
      folder: existing folder.
      name: beginning of the files' names, such as the split.
      features_too: True to write the features, about 10 kB each.
    """
    ids, rows = _ids(task), {"image": image_nd, "text": text_md}
    for kind, pattern in _FILES.items() if features_too else ():
        cn_clip_files.write_features(folder / pattern.format(name), kind, ids[kind], rows[kind])
    pairs_p2 = task.positives.pairs_p2
    for kind, other, column, ending in _DIRECTIONS:
        found_qk, _ = topk(rows[kind], rows[other], 10)
        best = zip(ids[kind], np.asarray(ids[other])[found_qk].tolist(), strict=True)
        cn_clip_files.write_predictions(folder / f"{name}_predictions{ending}.jsonl", kind, best)
        # Queries without positives are left out: cn_clip counts a text without images as a miss.
        answers: dict[int, list[int]] = {}
        for pair in pairs_p2[np.argsort(pairs_p2[:, column], kind="stable")].tolist():
            answers.setdefault(ids[kind][pair[column]], []).append(ids[other][pair[1 - column]])
        cn_clip_files.write_predictions(folder / f"{name}_answers{ending}.jsonl", kind, answers.items())


def read_cn_clip_features(folder: Path, name: str, task: RetrievalTask) -> tuple[Features, Features]:
    """Returns (image_nd, text_md) of a task from the split's two files of features.

    Raises JclipError if a file is missing or damaged, or lacks an image or a caption.
    """
    found = []
    for kind, ids in _ids(task).items():
        file = folder / _FILES[kind].format(name)
        known, rows = cn_clip_files.read_features(file, kind)
        row_of = {number: row for row, number in enumerate(known.tolist())}
        lost = next((number for number in ids if number not in row_of), None)
        if lost is not None:
            raise JclipError(f"{file} has no feature of {kind}_id {lost}; extract all features again")
        found.append(rows[[row_of[number] for number in ids]])
    return found[0], found[1]


def holds_features(folder: Path) -> bool:
    """Returns whether a folder holds features in cn_clip's files, and is not a bundle."""
    return not (folder / "config.json").is_file() and any(folder.glob("*_feat.jsonl"))


def _ids(task: RetrievalTask) -> dict[Modality, list[int]]:
    return {
        "image": list(range(len(task.pictures)) if task.image_ids is None else task.image_ids),
        "text": list(range(len(task.captions)) if task.text_ids is None else task.text_ids),
    }
