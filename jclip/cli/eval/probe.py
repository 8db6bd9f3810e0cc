"""`jclip eval probe BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.eval._common import all_devices, check_output, check_resamples, open_model, put_out, words
from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.findings import Findings
from jclip.evaluate.probing import Shots, find, read_splits
from jclip.evaluate.report.report import Section
from jclip.evaluate.report.shown import classified
from jclip.images.preprocess import Orientation


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
      orientation: of the camera: apply turns pictures that carry one upright, ignore takes no notice; by default what
        the bundle says, ignore for CLIP and Chinese-CLIP.
      batch_size: pictures encoded at once.
      resamples: of the bootstrap that gives the 95 % intervals where all pictures are learnt from; 0 for none.
      output: a new folder for results.json, report.html and report.md.
      json: print JSON.
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
    options = read(Options, arguments, "jclip eval probe")
    check_output(options.output)
    asked = [_number(word) for word in words(options.shots) or [options.shots]]
    if options.seeds < 1:
        raise JclipError(f"--seeds {options.seeds} is not possible: give 1 or more")
    check_resamples(options.resamples)
    sets = read_splits(options.data, options.dataset)
    model = open_model(options.bundle, options.batch_size, None, options.orientation)
    with all_devices(), Console(stderr=True, quiet=options.json).working("encoding") as say:
        features = {name: model.encode_image(one.pictures) for name, one in sets.splits.items()}
        tests, looked_at = [], []
        for shots in asked:
            say(f"fitting: {shots or 'all'} pictures a class")
            found, logits_nc = find(sets, features, shots, seeds=options.seeds, resamples=options.resamples)
            tests.append(found)
            looked_at.append(logits_nc)

    def sections() -> list[Section]:
        return [classified(sets.splits["test"], looked_at[-1], sets.names, "", tests[-1].variant)]

    settings = {"data": str(options.data), "dataset": options.dataset, "shots": options.shots}
    if options.orientation:
        settings["orientation"] = options.orientation
    findings = Findings(str(options.bundle), tuple(tests), settings)
    put_out(findings, options.output, as_json=options.json, sections=sections)
    return 0


def _number(word: str) -> Shots:
    if word == "all":
        return None
    if not word.isdecimal() or int(word) < 1:
        raise JclipError(f"--shots {word!r} is not possible: give numbers from 1, or all")
    return int(word)
