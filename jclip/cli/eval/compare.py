"""`jclip eval compare A B`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.report import from_results
from jclip.evaluate.report.terminal import TerminalTable
from jclip.evaluate.results import Result, Results, differences, read_results
from jclip.io.files import check_writable, whole_folder
from jclip.plain import as_json, print_json


@dataclass(frozen=True)
class CompareOptions:
    """Shows the results of two evaluations side by side, with their differences.

    Compares the tests that both ran, and counts the others. If both ran the same queries, the difference has a 95 %
    paired bootstrap interval; if it contains 0, the difference may be chance.

    Attributes:
      a: folder that --output wrote, or its results.json.
      b: the other such folder.
      output: new folder for report.html, report.md, and comparison.json, which has the output of --json.
      json: print JSON: for each test and figure [a, b], and the intervals of b - a.
    """

    a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A")]]
    b: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="B")]]
    output: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(CompareOptions, arguments, "jclip eval compare")
    if options.output is not None:
        check_writable(options.output)
    before, after = read_results(options.a), read_results(options.b)
    known = {test.key: test for test in before.tests}
    both = tuple(test for test in after.tests if test.key in known)
    if not both:
        raise JclipError(f"{options.a} and {options.b} have no test in common: evaluate both on the same data")
    shown = Results(after.model, both, after.settings)
    pairs = [_pair(known[test.key], test) for test in both]
    compared = {"a": before.model, "b": after.model, "tests": pairs}
    if options.json:
        print_json(compared, indent=2)
    else:
        console = Console()
        for table in from_results.tables(shown, before):
            console.print(TerminalTable(table))
        left = len(before.tests) + len(after.tests) - 2 * len(both)
        if left:
            console.tell(f"Left out: {left} {'test' if left == 1 else 'tests'} that only one of the two ran.")
    if options.output is not None:
        with whole_folder(options.output, replace=False) as folder:
            (folder / "comparison.json").write_text(f"{as_json(compared, indent=2)}\n", encoding="utf-8")
            from_results.write_pages(shown, folder, other=before)
        Console(stderr=True).tell(f"written: {options.output / 'report.html'}")
    return 0


def _pair(one: Result, other: Result) -> dict[str, object]:
    figures = {name: [one.figures[name], value] for name, value in other.figures.items() if name in one.figures}
    key = {"kind": one.kind, "dataset": one.dataset, "language": one.language}
    return key | ({"variant": one.variant} if one.variant else {}) | {
        "figures": figures, "differences": differences(one, other)
    }  # fmt: skip
