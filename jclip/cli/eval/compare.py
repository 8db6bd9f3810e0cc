"""`jclip eval compare A B`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jclip.cli.eval._common import check_output
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate import page
from jclip.evaluate.findings import Finding, Findings, read_findings, write_findings
from jclip.evaluate.report import terminal
from jclip.files import whole_folder


@dataclass(frozen=True)
class Options:
    """What two evaluations found, side by side: in every cell the figure of A, then that of B.

    Only tests that both did are compared; of the others the number is said. A difference smaller than the intervals of
    the two may be chance.

    Attributes:
      a: a folder that --output wrote, or its results.json.
      b: another one.
      output: a new folder for report.html and report.md.
      json: print JSON: for each test and figure [a, b].
    """

    a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A")]]
    b: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="B")]]
    output: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip eval compare")
    check_output(options.output)
    before, after = read_findings(options.a), read_findings(options.b)
    known = {test.key: test for test in before.tests}
    both = tuple(test for test in after.tests if test.key in known)
    if not both:
        raise JclipError(f"{options.a} and {options.b} have no test in common: evaluate both on the same data")
    shown = Findings(after.model, both, after.settings)
    if options.json:
        pairs = [_pair(known[test.key], test) for test in both]
        print(json.dumps({"a": before.model, "b": after.model, "tests": pairs}, indent=2, ensure_ascii=False))
    else:
        console = Console()
        for table in page.tables(shown, before):
            console.print(terminal(table))
        left = len(before.tests) + len(after.tests) - 2 * len(both)
        if left:
            console.print(f"{left} tests that only one of the two did are left out")
    if options.output is not None:
        with whole_folder(options.output, replace=False) as folder:
            write_findings(shown, folder / "results.json")
            page.write_pages(shown, folder, other=before)
        Console(stderr=True).print(f"written: {options.output / 'report.html'}", markup=False, soft_wrap=True)
    return 0


def _pair(one: Finding, other: Finding) -> dict[str, object]:
    figures = {name: [one.figures[name], value] for name, value in other.figures.items() if name in one.figures}
    return {"kind": one.kind, "dataset": one.dataset, "language": one.language, "figures": figures}
