"""Results of an evaluation, as plain data in results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jclip.config import from_json, to_json
from jclip.errors import JclipError
from jclip.evaluate.metrics.bootstrap import Interval
from jclip.evaluate.metrics.trials import Trials, changes
from jclip.io.json_files import read_json
from jclip.plain import as_json


@dataclass(frozen=True)
class Histogram:
    """Shares of scores between edges, by the name of each curve; there is one more edge than shares."""

    edges: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]


def histogram(values: Mapping[str, npt.NDArray[Any]], bins: int = 60) -> Histogram:
    """Returns the histograms of values by name, on common edges; a name without values has shares of 0."""
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, bins + 1)
    counts = {name: np.histogram(some, edges)[0] / max(len(some), 1) for name, some in values.items()}
    return Histogram(tuple(edges.tolist()), {name: tuple(shares.tolist()) for name, shares in counts.items()})


@dataclass(frozen=True)
class Result:
    """Result of one model on one test.

    Attributes:
      kind: "retrieval", "classification" or "probe".
      dataset: title of the data set, for tables.
      language: language of captions or prompts, BCP 47; "" for none.
      variant: name that distinguishes tests of one language, such as that of the prompts.
      figures: fractions in [0, 1], by name.
      intervals: 95 % bootstrap intervals [low, high] of some figures.
      main: name of the headline figure.
      counts: numbers by name, such as images, captions, queries, classes, removed duplicates, files left out.
      counting: "joined" or "published" for retrieval, see `datasets.counting`; "" for other kinds.
      note: remark for comparisons.
      confusion: (c, c) counts, true class by predicted class, if there are few classes.
      classes: class names of the confusion matrix.
      scores: distribution of the cosines.
      trials: contributions of each query to the figures, for comparisons of two models.
    """

    kind: str
    dataset: str
    language: str
    figures: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    main: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    note: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    classes: tuple[str, ...] = ()
    scores: Histogram | None = None
    variant: str = ""
    trials: tuple[Trials, ...] = ()
    counting: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Identity of the test; results of two models are compared if their keys are equal."""
        return self.kind, self.dataset, self.language, self.variant


@dataclass(frozen=True)
class Results:
    """Results of one evaluation.

    Attributes:
      model: folder of the bundle or of its features.
      tests: results in the order of the tests.
      settings: options of the evaluation.
    """

    model: str
    tests: tuple[Result, ...]
    settings: dict[str, str] = field(default_factory=dict)


_FORMAT = 1


def write_results(results: Results, file: Path) -> None:
    """Writes results as JSON."""
    text = as_json({"format": _FORMAT, **to_json(results)}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def read_results(place: str | Path) -> Results:
    """Reads a file, or the results.json of a folder. Raises JclipError if it is missing, or is not a results.json."""
    file = Path(place) / "results.json" if Path(place).is_dir() else Path(place)
    if not file.exists():
        raise JclipError(f"{file} does not exist: name a folder that jclip eval --output wrote")
    data = read_json(file)
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise JclipError(f"{file} is not a results.json of jclip eval: name a folder that --output wrote")
    return from_json(Results, data, str(file))


def as_dict(results: Results) -> dict[str, Any]:
    """Returns the results for --json, without the parts that only the report page shows."""

    def test(one: Result) -> dict[str, Any]:
        optional = {"variant": one.variant, "counting": one.counting}
        names = {"kind": one.kind, "dataset": one.dataset, "language": one.language}
        names |= {name: value for name, value in optional.items() if value}
        return {**names, **one.counts, **one.figures, "intervals": one.intervals}

    return {"model": results.model, "tests": [test(one) for one in results.tests]}


def mean_over(tests: Sequence[Result], name: str) -> float | None:
    """Returns the mean of a figure over the tests that have it; None if none has."""
    values = [one.figures[name] for one in tests if name in one.figures]
    return sum(values) / len(values) if values else None


def differences(before: Result, after: Result) -> dict[str, Interval]:
    """Returns 95 % intervals of the differences of two models on one test; empty if their queries differ."""
    return changes(before.trials, after.trials, "mean_recall" if after.kind == "retrieval" else "")
