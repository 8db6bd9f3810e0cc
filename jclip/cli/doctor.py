"""`jclip doctor`: checks this machine before a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jclip.cli.options import read
from jclip.console import Console, text
from jclip.doctor import examine
from jclip.plain import print_json


@dataclass(frozen=True)
class DoctorOptions:
    """Checks the devices, a multiplication on each, a sum over all, package versions and disk space.

    Attributes:
      workdir: folder for runs.
      json: print JSON.
    """

    workdir: Path = Path("runs")
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command. The exit code is 1 if a check failed."""
    options = read(DoctorOptions, arguments, "jclip doctor")
    findings = examine(options.workdir)
    if options.json:
        print_json([vars(finding) for finding in findings], indent=2)
    else:
        console = Console()
        for finding in findings:
            mark = text("ok    ", "green") if finding.well else text("failed", "red")
            console.print(mark, f"{finding.name:<12}", text(finding.note, longest=None), soft_wrap=True)
    return 0 if all(finding.well for finding in findings) else 1
