"""cn_clip's files of features and predictions: one JSON object in each line.

    valid_imgs.img_feat.jsonl        {"image_id": 7, "feature": [0.1, ...]}
    valid_texts.txt_feat.jsonl       {"text_id": 3, "feature": [0.1, ...]}
    valid_predictions.jsonl          {"text_id": 3, "image_ids": [7, 9, ...]}     text to image, best first
    valid_predictions.tr.jsonl       {"image_id": 7, "text_ids": [3, 4, ...]}     image to text
    valid_texts.tr.jsonl             {"image_id": 7, "text_ids": [3]}             positives of the images

Equal lines count once; two different lines with one id are an error.
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
Modality = Literal["image", "text"]


def json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, object) of each line that is not blank; the place is "FILE, line N", for messages.

    Raises JclipError if the file cannot be read, or a line is not a JSON object.
    """
    for line in scan(file):
        if line.data.strip():
            yield f"{file}, line {line.number}", object_of(file, line)


def whole_number(place: str, found: Mapping[str, Any], name: str) -> int:
    """Returns the id in the field `name`, as the import reads it: 7, "7" and "007" are equal.

    Raises JclipError if the id is missing, or is not an integer of 64 bits.
    """
    if name not in found:
        raise JclipError(f"{place} has no {name!r}: add it")
    return integer(found[name], name, place)


def is_text(value: Any) -> TypeGuard[str]:
    r"""Returns whether a JSON value is a non-blank string without lone surrogates such as "\ud83d"."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_numbers(place: str, found: Mapping[str, Any], name: str) -> list[int]:
    """Returns the ids in the field `name`. Raises JclipError if it is not a list, or an id is not an integer."""
    values = found.get(name)
    if not isinstance(values, list):
        raise JclipError(f"{place}: {name} is {repr(values)[:40]}, but must be a list of integers; [] for none")
    return [whole_number(place, {name: value}, name) for value in values]


def read_features(file: Path, kind: Modality) -> tuple[Ints, Floats32]:
    """Returns (ids_n, features_nd), in the file's order.

    Raises JclipError if the file is empty, an id has two features, or a row is not numbers or has another width.
    """
    rows: dict[int, Floats32] = {}
    for place, found in json_lines(file):
        number = whole_number(place, found, f"{kind}_id")
        try:
            row = np.asarray(found["feature"], np.float32)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise JclipError(f"{place}: 'feature' must be a list of numbers: extract the features again") from None
        shape = next(iter(rows.values())).shape if rows else (row.size,)
        if row.shape != shape:
            raise JclipError(f"{place}: this feature has the shape {row.shape} instead of {shape}: use one model")
        if number in rows and not np.array_equal(rows[number], row):
            raise JclipError(f"{place}: {kind}_id {number} has another feature above: give each its own id")
        rows[number] = row
    if not rows:
        raise JclipError(f"{file} holds no {kind} feature: the gallery would be empty")
    return np.array(list(rows), np.int64), np.stack(list(rows.values()))


def write_features(file: Path, kind: Modality, ids_n: Sequence[int], features_nd: npt.NDArray[Any]) -> None:
    """Writes a file of features; reading it returns the same float32 values."""
    pairs = zip(ids_n, np.asarray(features_nd, np.float32).tolist(), strict=True)
    _write(file, ({f"{kind}_id": int(number), "feature": row} for number, row in pairs))


def read_predictions(file: Path, asked: Modality) -> dict[int, list[int]]:
    """Returns {query id: retrieved ids, best first}; `asked` is the modality of the queries.

    Raises JclipError if an id is not an integer, is retrieved twice by one query, or a query has two different lines.
    """
    answered = "text" if asked == "image" else "image"
    predictions: dict[int, list[int]] = {}
    for place, found in json_lines(file):
        number = whole_number(place, found, f"{asked}_id")
        ids = whole_numbers(place, found, f"{answered}_ids")
        if len(set(ids)) < len(ids):
            raise JclipError(f"{place}: the {answered}_ids of {asked}_id {number} repeat an id: list each once")
        if predictions.setdefault(number, ids) != ids:
            raise JclipError(f"{place}: {asked}_id {number} has other predictions above: keep one line of the two")
    if not predictions:
        raise JclipError(f"{file} holds no predictions: write one line for each {asked}")
    return predictions


def write_predictions(file: Path, asked: Modality, predictions: Iterable[tuple[int, Sequence[int]]]) -> None:
    """Writes the retrieved ids of each query, best first; `asked` is the modality of the queries.

    cn_clip's scorers require ten ids for each query. They refuse the file of a gallery of fewer than ten.
    """
    answered = "text" if asked == "image" else "image"
    _write(file, ({f"{asked}_id": int(one), f"{answered}_ids": list(map(int, ids))} for one, ids in predictions))


def read_answers(file: Path) -> tuple[Modality, dict[int, list[int]]]:
    """Returns the modality of the queries, and {query id: ids of its positives}.

    Raises JclipError if the file is empty, or a line is not valid or contradicts another.
    """
    asked: Modality | None = None
    answers: dict[int, list[int]] = {}
    for place, found in json_lines(file):
        if asked is None:
            if "text_id" not in found and "image_id" not in found:
                raise JclipError(
                    f"{place} has neither 'text_id' nor 'image_id': expected the answers, such as valid_texts.jsonl"
                )
            asked = "text" if "text_id" in found else "image"
        number = whole_number(place, found, f"{asked}_id")
        ids = whole_numbers(place, found, "image_ids" if asked == "text" else "text_ids")
        if answers.setdefault(number, ids) != ids:
            raise JclipError(f"{place}: {asked}_id {number} has other answers above: keep one line of the two")
    if asked is None:
        raise JclipError(f"{file} holds no answers: write one object a line")
    return asked, answers


def score_predictions(
    answers: Mapping[int, Iterable[int]], predictions: Mapping[int, Sequence[int]], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Computes R@k and their mean as cn_clip's evaluation.py does: fractions "r1", ..., "mean_recall".

    `answers` holds the positives of each query; a query without positives counts as a miss. `predictions` holds the
    retrieved ids, best first; those of other queries are ignored. Raises JclipError if a query has no predictions, or
    there is no query.
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
