"""`jclip eval probe BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass

from jclip.cli.eval._common import BundleOptions, all_devices, words
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import open_probe
from jclip.evaluate.tasks import probe
from jclip.evaluate.tasks.probe import Shots


@dataclass(frozen=True)
class ProbeOptions(BundleOptions):
    """Evaluates linear probes on BUNDLE's frozen image features, trained on all images or a few of each class.

    DATA holds train/ and test/, each with a folder for each class, or is a folder that `jclip data import` wrote. The
    regularisation is chosen on the split valid; without one, on a held-out fifth of the training images, which the
    final fit includes. The features are those of retrieval: projected, of unit norm.

    Attributes:
      data: images by split and class.
      dataset: name of the data set, such as cifar-100; decides the metric, and the numbers of classes and images that
        are expected.
      shots: numbers of training images of each class, separated by commas, one test each; "all" for all.
      seeds: number of random draws of the training images of a few-shot probe; its figures are means.
      resamples: number of bootstrap resamples for the 95 % intervals of probes on all images; 0 for no intervals.
    """

    dataset: str = ""
    shots: str = "all"
    seeds: int = 3


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ProbeOptions, arguments, "jclip eval probe")
    options.check()
    shots = [_number(word) for word in words(options.shots) or [options.shots]]
    if options.seeds < 1:
        raise JclipError(f"--seeds {options.seeds} is not possible: give 1 or more")
    splits = open_probe(options.data, options.dataset)
    model = options.model()
    with all_devices(), options.console().working("encoding") as say:
        numbers = {"seeds": options.seeds, "resamples": options.resamples}
        found = list(probe.evaluate(splits, model, shots, **numbers, progress=say))
    settings = options.settings(data=str(options.data), dataset=options.dataset, shots=options.shots)
    evaluation = probe.as_evaluation(splits, found, model=str(options.bundle), settings=settings)
    options.show(evaluation)
    return 0


def _number(word: str) -> Shots:
    if word == "all":
        return None
    if not word.isdecimal() or int(word) < 1:
        raise JclipError(f"--shots {word!r} is not possible: give numbers from 1, or all")
    return int(word)
