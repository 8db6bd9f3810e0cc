"""Comparison of the results of two evaluations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.errors import JclipError
from jclip.evaluate.report import from_results
from jclip.evaluate.report.elements import Table
from jclip.evaluate.results import Result, Results, differences, read_results
from jclip.io.files import whole_folder
from jclip.plain import as_json


@dataclass(frozen=True)
class Comparison:
    """Results of two evaluations on the tests that both ran.

    Attributes:
      a, b: the results, in equal order of the tests.
      left_out: number of tests that only one of the two ran.
    """

    a: Results
    b: Results
    left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Returns {"a", "b", "tests"}: for each test its figures [a, b], and the intervals of b - a."""
        tests = [_pair(*pair) for pair in zip(self.a.tests, self.b.tests, strict=True)]
        return {"a": self.a.model, "b": self.b.model, "tests": tests}

    def tables(self) -> list[Table]:
        """Returns the figures side by side, with their differences."""
        return from_results.tables(self.b, self.a)

    def write(self, folder: str | Path) -> None:
        """Writes a new folder with comparison.json, report.html and report.md.

        Raises JclipError if the folder exists already, or the disk is full.
        """
        with whole_folder(Path(folder), replace=False) as partial:
            (partial / "comparison.json").write_text(f"{as_json(self.as_dict(), indent=2)}\n", encoding="utf-8")
            from_results.write_pages(self.b, partial, other=self.a)


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compares the results of two evaluations, as `jclip eval compare` does.

        jclip.evaluate.compare("results/a", "results/b").write("results/a-b")

    If both ran the same queries, a difference has a 95 % paired bootstrap interval.

    Args:
      a, b: folders that `Evaluation.write` or --output wrote, or their results.json.

    Raises:
      JclipError: a file cannot be read, or the two have no test in common.
    """
    before, after = read_results(a), read_results(b)
    known = {test.key: test for test in before.tests}
    both = tuple(test for test in after.tests if test.key in known)
    if not both:
        raise JclipError(f"{a} and {b} have no test in common: evaluate both on the same data")
    return Comparison(
        Results(before.model, tuple(known[test.key] for test in both), before.settings),
        Results(after.model, both, after.settings),
        len(before.tests) + len(after.tests) - 2 * len(both),
    )


def _pair(one: Result, other: Result) -> dict[str, Any]:
    variant = {"variant": one.variant} if one.variant else {}
    return {
        "kind": one.kind,
        "dataset": one.dataset,
        "language": one.language,
        **variant,
        "figures": {name: [one.figures[name], value] for name, value in other.figures.items() if name in one.figures},
        "differences": differences(one, other),
    }
