"""`jclip eval predictions ANSWERS PREDICTIONS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from jclip.cli.options import read
from jclip.console import Console, text
from jclip.errors import JclipError
from jclip.evaluate.features import Kind, json_lines, read_predictions, score_predictions, whole_number, whole_numbers
from jclip.plain import print_json


@dataclass(frozen=True)
class Options:
    """Recalls of predictions that are there already, as cn_clip's evaluation.py and evaluation_tr.py find them.

    Both are JSON lines: {"text_id": 3, "image_ids": [7, 9]} for text to image, {"image_id": 7, "text_ids": [3]} for
    image to text. Unlike cn_clip's programs this takes predictions of any number, which small galleries give.

    Attributes:
      answers: what is right, such as valid_texts.jsonl or valid_texts.tr.jsonl.
      predictions: what was found, the best first.
      json: print JSON.
    """

    answers: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="ANSWERS")]]
    predictions: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PREDICTIONS")]]
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip eval predictions")
    asked, answers = _answers(options.answers)
    figures = score_predictions(answers, read_predictions(options.predictions, asked))
    if options.json:
        print_json({"queries": len(answers), **figures}, indent=2)
        return 0
    table = Table(title=text(f"{options.predictions}: {len(answers)} queries"), title_justify="left")
    for name in figures:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(*(f"{100 * value:.2f}" for value in figures.values()))
    Console().print(table)
    return 0


def _answers(file: Path) -> tuple[Kind, dict[int, list[int]]]:
    asked: Kind | None = None
    answers: dict[int, list[int]] = {}
    for place, found in json_lines(file):
        if asked is None:
            if "text_id" not in found and "image_id" not in found:
                raise JclipError(f"{place} has neither 'text_id' nor 'image_id': these are no answers")
            asked = "text" if "text_id" in found else "image"
        number = whole_number(place, found, f"{asked}_id")
        ids = whole_numbers(place, found, "image_ids" if asked == "text" else "text_ids")
        if answers.setdefault(number, ids) != ids:
            raise JclipError(f"{place}: {asked}_id {number} has other answers above: keep one line of the two")
    if asked is None:
        raise JclipError(f"{file} holds no answers: write one object a line")
    return asked, answers
