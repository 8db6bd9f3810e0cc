"""`jclip eval probe BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.eval._common import all_devices, check_output, check_resamples, open_model, show, words
from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import open_probe
from jclip.evaluate.tasks import probe
from jclip.evaluate.tasks.probe import Shots
from jclip.images.preprocess import Orientation


@dataclass(frozen=True)
class ProbeOptions:
    """Evaluates linear probes on BUNDLE's frozen image features, trained on all pictures or a few of each class.

    DATA holds train/ and test/, each with a folder for each class, or is a folder that `jclip data import` wrote. The
    regularisation is chosen on the split valid; without one, on a held-out fifth of the training pictures, which the
    final fit includes. The features are those of retrieval: projected, of unit norm.

    Attributes:
      bundle: folder of a model.
      data: the pictures.
      dataset: name of the data set, such as cifar-100; decides metric and size.
      shots: training pictures of each class, separated by commas; "all" for all.
      seeds: number of draws of a few-shot probe; its figures are means.
      orientation: apply rotates pictures by their EXIF orientation, ignore does not; by default the bundle's setting,
        which is ignore for CLIP and Chinese-CLIP.
      batch_size: pictures encoded at once.
      resamples: number of bootstrap resamples for the 95 % intervals of probes on all pictures; 0 for no intervals.
      output: new folder for results.json, report.html and report.md.
      json: prints JSON.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    dataset: str = ""
    shots: str = "all"
    seeds: int = 3
    orientation: Orientation | None = None
    batch_size: int = 256
    resamples: int = 1000
    output: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ProbeOptions, arguments, "jclip eval probe")
    check_output(options.output)
    shots = [_number(word) for word in words(options.shots) or [options.shots]]
    if options.seeds < 1:
        raise JclipError(f"--seeds {options.seeds} is not possible: give 1 or more")
    check_resamples(options.resamples)
    splits = open_probe(options.data, options.dataset)
    model = open_model(options.bundle, options.batch_size, None, options.orientation)
    with all_devices(), Console(stderr=True, quiet=options.json).working("encoding") as say:
        numbers = {"seeds": options.seeds, "resamples": options.resamples}
        found = list(probe.evaluate(splits, model, shots, **numbers, progress=say))
    settings = {"data": str(options.data), "dataset": options.dataset, "shots": options.shots}
    if options.orientation:
        settings["orientation"] = options.orientation
    evaluation = probe.as_evaluation(splits, found, model=str(options.bundle), settings=settings)
    show(evaluation, options.output, as_json=options.json)
    return 0


def _number(word: str) -> Shots:
    if word == "all":
        return None
    if not word.isdecimal() or int(word) < 1:
        raise JclipError(f"--shots {word!r} is not possible: give numbers from 1, or all")
    return int(word)
