"""Divides the shards of split "train" into training and validation, in two passes; their results are files."""

import json
from collections import Counter

import numpy as np

from jclip.data.importing.survey import Task, whole_result
from jclip.data.importing.validation import TRAIN, VALID, Side, divide, picture_numbers


def number_pictures(task: Task) -> None:
    """Writes the identity of each record's image to "pictures.npy"."""
    numbers = picture_numbers(task.file("shard"), task.kind)
    with whole_result(task.file("pictures.npy")) as partial, partial.open("wb") as stream:
        np.save(stream, numbers)


def divide_task(task: Task, bound: int) -> None:
    """Writes both sides of a shard, "shard.train" and "shard.valid", and their counts to "divided.json"."""
    files = {name: task.file(f"shard.{name}") for name in (TRAIN, VALID)}
    for file in files.values():
        file.unlink(missing_ok=True)  # left by a process that was killed before it wrote "divided.json"
    sides = divide(task.file("shard"), task.kind, bound, files)
    found = [{**vars(side), "file": side.file.name} for side in sides]
    with whole_result(task.file("divided.json")) as partial:
        partial.write_text(json.dumps(found), encoding="utf-8")


def divided(task: Task) -> list[Side]:
    """Returns the sides that `divide_task` wrote."""
    found = json.loads(task.file("divided.json").read_text(encoding="utf-8"))
    return [Side(**{**one, "file": task.folder / one["file"], "languages": Counter(one["languages"])}) for one in found]
