"""`jclip eval compare A B`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.options import read
from jclip.console import Console
from jclip.evaluate.report.from_results import tables
from jclip.evaluate.report.terminal import TerminalTable
from jclip.evaluate.tasks.evaluation import compare
from jclip.io.files import check_writable
from jclip.plain import print_json


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
    comparison = compare(options.a, options.b)
    if options.json:
        print_json(comparison.as_dict(), indent=2)
    else:
        console = Console()
        for table in tables(comparison.b, comparison.a):
            console.print(TerminalTable(table))
        if left := comparison.left_out:
            console.tell(f"Left out: {left} {'test' if left == 1 else 'tests'} that only one of the two ran.")
    if options.output is not None:
        comparison.write(options.output)
        Console(stderr=True).tell(f"written: {options.output / 'report.html'}")
    return 0
