"""`jclip train CONFIG`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jclip.cli.configs import parse
from jclip.train.loop import train
from jclip.train.telemetry import ProgressWatcher


@dataclass(frozen=True)
class Options:
    """Trains all stages of CONFIG; started again, it resumes where it stopped.

    Any field of the configuration can be set: --stages.0.batch-size 256. `jclip train CONFIG --help` lists them.

    Attributes:
      config: a Python file whose config() builds the run.
      workdir: holds checkpoints, metrics.jsonl and a bundle a stage; default runs/NAME.
      reduced: shrink the towers, and train two steps a stage on synthetic data: does this recipe run here?
      json: print the outcome as JSON, and no progress.
    """

    config: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="CONFIG")]]
    workdir: Path | None = None
    reduced: bool = False
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options, run = parse(Options, arguments, "train")
    workdir = options.workdir or Path("runs") / ("reduced" if options.reduced else "") / run.name
    console = Console(stderr=True, quiet=options.json)
    with ProgressWatcher(console, run.name) as watcher:
        outcome = train(run, workdir, watcher=watcher)
    bundles = [str(path) for path in outcome.bundles]
    if options.json:
        print(json.dumps({"finished": outcome.finished, "steps": outcome.position.total, "bundles": bundles}))
    elif outcome.finished:
        console.print(f"finished: {outcome.position.total} steps; bundles: {', '.join(bundles)}", markup=False)
    else:
        console.print(f"stopped after {outcome.position.total} steps, saved: the same command goes on from here")
    return 0 if outcome.finished else 130
