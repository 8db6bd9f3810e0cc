"""What an evaluation found, as plain data that is written to results.json and read back."""

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
    """Shares of scores between edges, one more edge than shares, by the name of each curve."""

    edges: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]


def histogram(values: Mapping[str, npt.NDArray[Any]], bins: int = 60) -> Histogram:
    """Of some values under each name, as shares of them, on common edges; a name without values has shares of 0."""
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, bins + 1)
    counts = {name: np.histogram(some, edges)[0] / max(len(some), 1) for name, some in values.items()}
    return Histogram(tuple(edges.tolist()), {name: tuple(shares.tolist()) for name, shares in counts.items()})


@dataclass(frozen=True)
class Finding:
    """One test of one model.

    Attributes:
      kind: "retrieval", "classification", "probe".
      dataset: for tables.
      language: of captions or prompts, BCP 47; "" where there is none to name.
      variant: what else tells it from others of the same language, such as the prompts' name.
      figures: by name, fractions in [0, 1].
      intervals: 95 % bootstrap intervals [low, high] of some of the figures.
      main: the name of the figure that papers report.
      counts: pictures, captions, queries, classes; of retrieval, how many were joined with an equal one.
      counting: of retrieval, "joined" or "published", see `rows`; "" for other kinds.
      note: what to know before comparing.
      confusion: (c, c) counts, true class by predicted class, for classifications of few classes.
      classes: their names.
      scores: how cosines are distributed.
      trials: what each query gave.
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
        """What two models must share to be compared."""
        return self.kind, self.dataset, self.language, self.variant


@dataclass(frozen=True)
class Findings:
    """All that one call of `jclip eval` found.

    Attributes:
      model: the bundle's folder, or where its features came from.
      tests: in the order in which they ran.
      settings: of the call, for whoever repeats it.
    """

    model: str
    tests: tuple[Finding, ...]
    settings: dict[str, str] = field(default_factory=dict)


_FORMAT = 1


def write_findings(findings: Findings, file: Path) -> None:
    """Writes them as JSON."""
    text = as_json({"format": _FORMAT, **to_json(findings)}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def read_findings(place: Path) -> Findings:
    """From a file, or from the results.json of a folder.

    Raises:
      JclipError: there is none, or it is something else.
    """
    file = place / "results.json" if place.is_dir() else place
    if not file.exists():
        raise JclipError(f"there is no {file}: name a folder that jclip eval --output wrote")
    data = read_json(file)
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise JclipError(f"{file} is no results.json of jclip eval: name a folder that --output wrote")
    return from_json(Findings, data, str(file))


def as_dict(findings: Findings) -> dict[str, Any]:
    """The same without what only the page needs: for --json."""
    return {
        "model": findings.model,
        "tests": [
            {
                "kind": one.kind,
                "dataset": one.dataset,
                "language": one.language,
                **({"variant": one.variant} if one.variant else {}),
                **({"counting": one.counting} if one.counting else {}),
                **one.counts,
                **one.figures,
                "intervals": one.intervals,
            }
            for one in findings.tests
        ],
    }


def mean_over(tests: Sequence[Finding], name: str) -> float | None:
    """The mean of a figure over tests that have it; None when none has."""
    values = [one.figures[name] for one in tests if name in one.figures]
    return sum(values) / len(values) if values else None


def differences(before: Finding, after: Finding) -> dict[str, Interval]:
    """95 % intervals of what two models differ by in one test; none where they were not asked the same.

    Raises:
      JclipError: as `trials.changes`.
    """
    return changes(before.trials, after.trials, "mean_recall" if after.kind == "retrieval" else "")
