"""`jclip eval probe BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from jclip.cli.eval._common import all_devices, check_output, open_model, put_out
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate import classification, probe
from jclip.evaluate.benchmarks import get_benchmark
from jclip.evaluate.class_sets import ClassSet, read_classes
from jclip.evaluate.findings import Finding, Findings


@dataclass(frozen=True)
class Options:
    """A linear probe on BUNDLE's frozen features of pictures, of all training pictures and of a few of each class.

    DATA holds train/ and test/, each with a folder for each class, and may hold valid/, on which the regularisation is
    swept; without it a fifth of the training pictures is held out for that, and trained on in the end. The features are
    those that retrieval compares: projected, of unit length.

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
    sets = _sets(options)
    model = open_model(options.bundle, options.batch_size, None)
    with all_devices(), Console(stderr=True, quiet=options.json).status("encoding, and fitting"):
        features = {name: model.encode_image(one.pictures) for name, one in sets.items()}
        tests = [_find(count, options, sets, features) for count in asked]
    settings = {"data": str(options.data), "dataset": options.dataset, "shots": options.shots}
    put_out(Findings(str(options.bundle), tuple(tests), settings), options.output, as_json=options.json)
    return 0


def _number(word: str) -> int | None:
    if word == "all":
        return None
    if not word.isdigit() or int(word) < 1:
        raise JclipError(f"--shots {word!r} is not possible: give numbers from 1, or all")
    return int(word)


def _sets(options: Options) -> dict[str, ClassSet]:
    names = ["train", "test"] + ["valid"] * (options.data / "valid").is_dir()
    sets = {name: read_classes(options.data / name) for name in names}
    for name, one in sets.items():
        if one.keys != sets["train"].keys:
            raise JclipError(f"{one.name} has other classes than {sets['train'].name}: give both the same folders")
        if not one.single:
            raise JclipError(f"{one.name} has pictures of several classes, which a probe cannot learn: give one each")
        if name == "test" and options.dataset:
            get_benchmark(options.dataset).check(one.name, len(one.keys), len(one.pictures))
    return sets


def _find(count: int | None, options: Options, sets: dict[str, ClassSet], features: dict[str, np.ndarray]) -> Finding:
    train, test = sets["train"], sets["test"]
    benchmark = get_benchmark(options.dataset) if options.dataset else None
    valid = (features["valid"], sets["valid"].classes_n) if "valid" in sets else None
    found = []
    for seed in range(1 if count is None else options.seeds):
        rows = np.arange(len(train.pictures)) if count is None else probe.shots(train.classes_n, count, seed)
        # Whoever has a few pictures has no validation split beside them.
        few = (features["train"][rows], train.classes_n[rows])
        learnt = probe.learn(few, valid if count is None else None, len(train.keys))
        logits_nc = learnt.scores(features["test"])
        found.append(
            classification.find(
                test,
                logits_nc,
                classification.softmax(logits_nc),
                names=train.keys,
                benchmark=benchmark,
                kind="probe",
                resamples=1000 if count is None else 0,
            )
        )
    name = "all training pictures" if count is None else f"{count} pictures a class"
    figures = {one: float(np.mean([each.figures[one] for each in found])) for one in found[0].figures}
    if len(found) > 1:
        figures["accuracy_std"] = float(np.std([each.figures["accuracy"] for each in found], ddof=1))
    counts = {**found[0].counts, "draws": len(found)}
    return replace(found[0], dataset=f"{found[0].dataset}, {name}", figures=figures, counts=counts)
