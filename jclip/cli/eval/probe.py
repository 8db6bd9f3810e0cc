"""`jclip eval probe BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jclip.cli.eval._common import all_devices, check_output, open_model, put_out
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate.findings import Findings
from jclip.evaluate.probing import Shots, find, read_splits


@dataclass(frozen=True)
class Options:
    """A linear probe on BUNDLE's frozen features of pictures, of all training pictures and of a few of each class.

    DATA holds train/ and test/, each with a folder for each class, or is what `jclip data import` made of them; it may
    have a split valid as well, on which the regularisation is swept. Without that a fifth of the training pictures is
    held out, and trained on in the end. The features are those that retrieval compares: projected, of unit length.

    Attributes:
      bundle: a model's folder.
      data: the pictures.
      dataset: the set's name, such as cifar-100: its metric and its size.
      shots: pictures of each class, separated by commas; "all" for all of them.
      seeds: few-shot figures are means over so many draws.
      batch_size: pictures encoded at once.
      output: a new folder for results.json, report.html and report.md.
      json: print JSON.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    dataset: str = ""
    shots: str = "all"
    seeds: int = 3
    batch_size: int = 256
    output: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip eval probe")
    check_output(options.output)
    asked = [_number(word.strip()) for word in options.shots.split(",")]
    if options.seeds < 1:
        raise JclipError(f"--seeds {options.seeds} is not possible: give 1 or more")
    sets = read_splits(options.data, options.dataset)
    model = open_model(options.bundle, options.batch_size, None)
    with all_devices(), Console(stderr=True, quiet=options.json).status("encoding") as status:
        features = {name: model.encode_image(one.pictures) for name, one in sets.splits.items()}
        tests = []
        for shots in asked:
            status.update(f"fitting: {shots or 'all'} pictures a class")
            tests.append(find(sets, features, shots, seeds=options.seeds))
    settings = {"data": str(options.data), "dataset": options.dataset, "shots": options.shots}
    put_out(Findings(str(options.bundle), tuple(tests), settings), options.output, as_json=options.json)
    return 0


def _number(word: str) -> Shots:
    if word == "all":
        return None
    if not word.isdigit() or int(word) < 1:
        raise JclipError(f"--shots {word!r} is not possible: give numbers from 1, or all")
    return int(word)
