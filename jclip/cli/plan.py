"""`jclip plan CONFIG`."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jclip.cli.configs import parse
from jclip.data.text import load_tokenizer
from jclip.errors import JclipError
from jclip.train.plan import StagePlan, plan
from jclip.train.run import Run


@dataclass(frozen=True)
class Options:
    """Prints what CONFIG would do: stages, trained and frozen parameters, arithmetic, memory; trains nothing.

    Attributes:
      config: a Python file whose config() builds the run.
      reduced: plan the shrunken run of `jclip train CONFIG --reduced`.
      json: print JSON.
    """

    config: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="CONFIG")]]
    reduced: bool = False
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options, run = parse(Options, arguments, "plan")
    counts_epochs = any(stage.budget.epochs is not None for stage in run.stages)
    if counts_epochs and not Path(run.tokenizer).is_dir():
        raise JclipError(f"a budget in epochs needs the data and the tokenizer {run.tokenizer}, which is not there")
    plans = plan(run, load_tokenizer(Path(run.tokenizer)) if counts_epochs else None)
    if options.json:
        print(json.dumps({"run": run.name, "stages": [dataclasses.asdict(stage) for stage in plans]}, indent=2))
    else:
        _show(run, plans, Console())
    return 0


def _show(run: Run, plans: list[StagePlan], console: Console) -> None:
    table = Table(title=f"{run.name}: stages", title_justify="left")
    rows: dict[str, list[str]] = {
        "objective": [p.objective for p in plans],
        "batch (pairs)": [f"{p.batch_size:,}" for p in plans],
        "steps": [f"{p.steps:,}" for p in plans],
        "pairs seen": [f"{p.pairs:,}" for p in plans],
        "peak learning rate": [f"{p.learning_rate:g}" for p in plans],
        "parameters trained": [f"{p.trainable:,}" for p in plans],
        "parameters frozen": [f"{p.frozen:,}" for p in plans],
        "arithmetic a step": [f"{p.flops_per_step / 1e12:,.3g} TFLOP" for p in plans],
        "arithmetic in all": [f"{p.flops / 1e18:,.3g} EFLOP" for p in plans],
        "parameters, slots, gradients": [f"{p.state_bytes / 2**30:,.2f} GiB" for p in plans],
    }
    table.add_column("")
    for number, stage in enumerate(plans, 1):
        table.add_column(f"{number} {stage.name}", justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    for number, stage in enumerate(plans, 1):
        groups = Table(title=f"{number} {stage.name}: what trains", title_justify="left")
        groups.add_column("parameters")
        groups.add_column("count", justify="right")
        groups.add_column("")
        for paths, count, trains in stage.groups:
            groups.add_row(paths, f"{count:,}", "[green]trains[/]" if trains else "[dim]frozen[/]")
        console.print(groups)
