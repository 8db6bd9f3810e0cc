"""`jclip eval retrieval BUNDLE PAIRS`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jclip.bundle import load_bundle
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate.retrieval import recalls
from jclip.evaluate.tasks import read_pairs
from jclip.inference import Model


@dataclass(frozen=True)
class Options:
    """Text-to-image and image-to-text recalls of BUNDLE on the pictures and captions of PAIRS.

    Attributes:
      task: what to evaluate: "retrieval".
      bundle: a model's folder, such as runs/demo/altclip/2-contrastive.
      pairs: a UTF-8 file with lines PICTURE<tab>CAPTION, paths relative to the file.
      batch_size: pictures or captions encoded at once.
      json: print JSON.
    """

    task: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="retrieval")]]
    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    pairs: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PAIRS")]]
    batch_size: int = 256
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip eval")
    if options.task != "retrieval":
        raise JclipError(f"there is no evaluation {options.task!r}: choose retrieval")
    if options.batch_size < 1:
        raise JclipError(f"--batch-size {options.batch_size} is not possible: give 1 or more")
    task = read_pairs(options.pairs)
    model = Model(load_bundle(options.bundle), options.batch_size)
    figures = recalls(
        model.encode_image(task.pictures), model.encode_text(task.captions), task.picture_keys, task.caption_keys
    )
    if options.json:
        print(json.dumps({"pictures": len(task.pictures), "captions": len(task.captions), **figures}, indent=2))
        return 0
    table = Table(title=f"{options.bundle}: {len(task.pictures)} pictures, {len(task.captions)} captions")
    table.add_column("recall")
    table.add_column("%", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{100 * value:.2f}")
    Console().print(table)
    return 0
