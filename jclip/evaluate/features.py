"""cn_clip's files of features and predictions: JSON, one object a line.

    valid_imgs.img_feat.jsonl        {"image_id": 7, "feature": [0.1, ...]}
    valid_texts.txt_feat.jsonl       {"text_id": 3, "feature": [0.1, ...]}
    valid_predictions.jsonl          {"text_id": 3, "image_ids": [7, 9, ...]}     text to image, the best first
    valid_predictions.tr.jsonl       {"image_id": 7, "text_ids": [3, 4, ...]}     image to text
    valid_texts.tr.jsonl             {"image_id": 7, "text_ids": [3]}             the answers, seen from the images

A line that stands there twice counts once; two lines that say different things of one id are an error.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from jclip.data.importing.lines import integer, object_of, scan
from jclip.errors import JclipError

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Kind = Literal["image", "text"]


def json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line that is not blank; the place is "FILE, line N", for messages.

    Raises:
      JclipError: the file cannot be read, or a line is no JSON object.
    """
    for line in scan(file):
        if line.data.strip():
            yield f"{file}, line {line.number}", object_of(file, line)


def whole_number(place: str, found: Mapping[str, Any], name: str) -> int:
    """The id under a name, as the import reads it: 7, "7" and "007" are one.

    Raises:
      JclipError: it is missing, or no whole number of 64 bits.
    """
    if name not in found:
        raise JclipError(f"{place} has no {name!r}: add it")
    return integer(found[name], name, place)


def is_text(value: Any) -> TypeGuard[str]:
    r"""Whether a JSON value is a text with something in it; "\ud83d" is half a character, which no tokenizer takes."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_numbers(place: str, found: Mapping[str, Any], name: str) -> list[int]:
    """The ids under a name, checked as `whole_number` checks one."""
    values = found.get(name)
    if not isinstance(values, list):
        raise JclipError(f"{place}: {name} is {repr(values)[:40]}, but must be a list of whole numbers, [] for none")
    return [whole_number(place, {name: value}, name) for value in values]


def read_features(file: Path, kind: Kind) -> tuple[Ints, Floats32]:
    """(ids_n, features_nd), in the file's order.

    Raises:
      JclipError: no row at all, a row of another width, numbers that are none, or an id with two features.
    """
    rows: dict[int, Floats32] = {}
    for place, found in json_lines(file):
        number = whole_number(place, found, f"{kind}_id")
        try:
            row = np.asarray(found["feature"], np.float32)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise JclipError(f"{place}: 'feature' must be a list of numbers: extract the features again") from None
        if row.ndim != 1 or (rows and row.shape != next(iter(rows.values())).shape):
            raise JclipError(f"{place}: this feature is {row.shape}, those before it {_shape(rows)}: do not mix models")
        if number in rows and not np.array_equal(rows[number], row):
            raise JclipError(f"{place}: {kind}_id {number} has another feature above: give each its own id")
        rows[number] = row
    if not rows:
        raise JclipError(f"{file} holds no {kind} feature: the gallery would be empty")
    return np.array(list(rows), np.int64), np.stack(list(rows.values()))


def write_features(file: Path, kind: Kind, ids_n: Sequence[int], features_nd: npt.NDArray[Any]) -> None:
    """Writes such a file; numbers come back to the same float32."""
    pairs = zip(ids_n, np.asarray(features_nd, np.float32).tolist(), strict=True)
    _write(file, ({f"{kind}_id": int(number), "feature": row} for number, row in pairs))


def read_predictions(file: Path, asked: Kind) -> dict[int, list[int]]:
    """{id that was asked: ids that were found, the best first}.

    Raises:
      JclipError: an id that is no whole number, is found twice by one query, or is asked twice with other findings.
    """
    answered = "text" if asked == "image" else "image"
    predictions: dict[int, list[int]] = {}
    for place, found in json_lines(file):
        number = whole_number(place, found, f"{asked}_id")
        ids = whole_numbers(place, found, f"{answered}_ids")
        if len(set(ids)) < len(ids):
            raise JclipError(f"{place}: the {answered}_ids of {asked}_id {number} name one twice: name each once")
        if predictions.setdefault(number, ids) != ids:
            raise JclipError(f"{place}: {asked}_id {number} has other predictions above: keep one line of the two")
    if not predictions:
        raise JclipError(f"{file} holds no prediction: write one line for each {asked}")
    return predictions


def write_predictions(file: Path, asked: Kind, predictions: Iterable[tuple[int, Sequence[int]]]) -> None:
    """Writes what was found for each id, the best first.

    cn_clip's scorers want ten for each, and refuse a file with fewer, which is what a gallery of less than ten gives.
    """
    answered = "text" if asked == "image" else "image"
    _write(
        file, ({f"{asked}_id": int(number), f"{answered}_ids": [int(i) for i in ids]} for number, ids in predictions)
    )


def score_predictions(
    answers: Mapping[int, Iterable[int]], predictions: Mapping[int, Sequence[int]], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """R@k and their mean, as cn_clip's evaluation.py has them, in [0, 1]: "r1", ..., "mean_recall".

    Every query of `answers` counts, one without any answer as a miss; predictions for others are ignored.

    Raises:
      JclipError: a query without predictions, or no query at all.
    """
    missing = [number for number in answers if number not in predictions]
    if missing:
        raise JclipError(f"{len(missing)} queries have no predictions, such as {missing[0]}: predict for all")
    if not answers:
        raise JclipError("there are no queries: nothing can be scored")
    hits = {k: [not set(right).isdisjoint(predictions[number][:k]) for number, right in answers.items()] for k in ks}
    found = {f"r{k}": float(np.mean(hit)) for k, hit in hits.items()}
    return found | {"mean_recall": float(np.mean(list(found.values())))}


def _write(file: Path, objects: Iterable[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in objects)


def _shape(rows: Mapping[int, Floats32]) -> str:
    return str(next(iter(rows.values())).shape) if rows else "lists of numbers"
