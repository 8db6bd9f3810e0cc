"""`jclip eval predictions ANSWERS PREDICTIONS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from jclip.cli.options import read
from jclip.console import Console, text
from jclip.evaluate.cn_clip_files import read_answers, read_predictions, score_predictions
from jclip.plain import print_json


@dataclass(frozen=True)
class PredictionsOptions:
    """Computes recalls of existing predictions, as cn_clip's evaluation.py and evaluation_tr.py do.

    Both files are JSON lines: {"text_id": 3, "image_ids": [7, 9]} for text to image, {"image_id": 7, "text_ids": [3]}
    for image to text. Unlike cn_clip's programs, it accepts fewer than ten predictions for a query.

    Attributes:
      answers: file of positives, such as valid_texts.jsonl or valid_texts.tr.jsonl.
      predictions: file of retrieved ids, best first.
      json: print JSON.
    """

    answers: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="ANSWERS")]]
    predictions: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PREDICTIONS")]]
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(PredictionsOptions, arguments, "jclip eval predictions")
    asked, answers = read_answers(options.answers)
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
