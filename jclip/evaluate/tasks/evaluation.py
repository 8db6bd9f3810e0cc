"""Evaluation of one model on one data set, comparison of two, and the folders that hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jclip.errors import JclipError
from jclip.evaluate.report.elements import Section
from jclip.evaluate.report.from_results import write_pages
from jclip.evaluate.results import Result, Results, differences, read_results, write_results
from jclip.images.preprocess import Picture
from jclip.io.files import whole_folder
from jclip.plain import as_json

Progress = Callable[[str], object]
"""Callback that receives a description of the current step."""


class Encodes(Protocol):
    """Model with both towers, such as `jclip.load` returns. Both methods return (n, d) float32 unit vectors."""

    def encode_image(self, pictures: Sequence[Picture] | np.ndarray, /) -> np.ndarray: ...  # noqa: D102

    def encode_text(self, sentences: Sequence[str], /) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class Evaluation:
    """Results of a task, and the further contents of its report and its folder.

    Attributes:
      results: the figures.
      sections: function that returns the sections of the page after the figures.
      more_files: function that writes further files into a folder.
    """

    results: Results
    sections: Callable[[], list[Section]] = list
    more_files: Callable[[Path], object] = lambda folder: None

    def write(self, folder: str | Path) -> None:
        """Writes a new folder with results.json, report.html, report.md and the task's own files.

        Raises JclipError if the folder exists already, or the disk is full.
        """
        with whole_folder(Path(folder), replace=False) as partial:
            write_results(self.results, partial / "results.json")
            write_pages(self.results, partial, self.sections())
            self.more_files(partial)


@dataclass(frozen=True)
class Comparison:
    """Results `a` and `b` of two evaluations on the tests that both ran; `left_out` counts the other tests."""

    a: Results
    b: Results
    left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Returns {"a", "b", "tests"}: for each test its figures [a, b], and the intervals of b - a."""
        tests = [_pair(*pair) for pair in zip(self.a.tests, self.b.tests, strict=True)]
        return {"a": self.a.model, "b": self.b.model, "tests": tests}

    def write(self, folder: str | Path) -> None:
        """Writes a new folder with comparison.json, report.html and report.md. Raises JclipError if it exists."""
        with whole_folder(Path(folder), replace=False) as partial:
            (partial / "comparison.json").write_text(f"{as_json(self.as_dict(), indent=2)}\n", encoding="utf-8")
            write_pages(self.b, partial, other=self.a)


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compares the results of two evaluations, in folders that `Evaluation.write` or --output wrote.

        jclip.evaluate.compare("results/a", "results/b").write("results/a-b")

    If both ran the same queries, a difference has a 95 % paired bootstrap interval. Raises JclipError if a file cannot
    be read, or the two have no test in common.
    """
    before, after = read_results(a), read_results(b)
    known = {test.key: test for test in before.tests}
    both = tuple(test for test in after.tests if test.key in known)
    if not both:
        raise JclipError(f"{a} and {b} have no test in common: evaluate both on the same data")
    theirs = tuple(known[test.key] for test in both)
    left_out = len(before.tests) + len(after.tests) - 2 * len(both)
    return Comparison(replace(before, tests=theirs), replace(after, tests=both), left_out)


def _pair(one: Result, other: Result) -> dict[str, Any]:
    key = {"kind": one.kind, "dataset": one.dataset, "language": one.language}
    key |= {"variant": one.variant} if one.variant else {}
    figures = {name: [one.figures[name], value] for name, value in other.figures.items() if name in one.figures}
    return {**key, "figures": figures, "differences": differences(one, other)}
