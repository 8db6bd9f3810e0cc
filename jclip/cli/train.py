"""`jclip train CONFIG`."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from jclip.accelerators.targets import GPU_SHARE
from jclip.cli.configs import parse
from jclip.cli.platforms import take_of_gpus
from jclip.cli.train_words import what_now
from jclip.console import Console
from jclip.errors import first_line
from jclip.io.files import check_folder
from jclip.parallel.processes import connect, is_first_process, is_single_process, on_first, sharing_errors
from jclip.plain import complain, print_json
from jclip.running import run as run_all
from jclip.train.configuration import Run
from jclip.train.logging.progress import ProgressWatcher
from jclip.train.logging.sinks import read_journal
from jclip.train.outcome import Outcome
from jclip.train.scores import Scores

LOST = 128 + signal.SIGABRT
"""Exit code after another process was lost, the same as jax's own."""


@dataclass(frozen=True)
class TrainOptions:
    """Trains all stages of CONFIG. The same command resumes a run that was stopped.

    Options set any field of the configuration: --stages.0.batch-size 256. `jclip train CONFIG --help` lists them.

    Exit codes: 0 finished; 75 saved after SIGTERM, or SIGHUP of a lost terminal: start it again; 130 saved after
    Ctrl-C; 134 another process was lost.

    Attributes:
      config: a recipe's name (`jclip configs` lists them) or a Python file with a function config().
      workdir: folder for checkpoints, metrics.jsonl and one bundle for each stage; by default runs/NAME.
      reduced: train two steps a stage with small towers on synthetic data, to check that the recipe runs here.
      json: print the outcome as JSON, without progress.
      distributed: join the other processes of this run. jax finds them on a TPU pod, Slurm, Kubernetes or Open MPI;
        elsewhere set the environment variables JCLIP_COORDINATOR, JCLIP_PROCESSES and JCLIP_PROCESS.
    """

    config: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="CONFIG")]]
    workdir: Path | None = None
    reduced: bool = False
    json: bool = False
    distributed: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    try:
        with sharing_errors():
            return _train(arguments)
    except jax.errors.JaxRuntimeError as error:
        if is_single_process():
            raise
        complain(f"jclip train: a process of this run was lost, or a device failed: {first_line(error)}")
        os._exit(LOST)  # jax would wait at exit for the other processes, one of which is gone


def _train(arguments: Sequence[str]) -> int:
    take_of_gpus(GPU_SHARE)  # with which plans count; jax's default is 0.75
    options, run = parse(TrainOptions, arguments, "train", lambda options: connect(options.distributed))
    workdir = options.workdir or Path("runs") / ("reduced" if options.reduced else "") / run.name
    on_first(lambda: check_folder(workdir))
    console = Console(stderr=True, quiet=options.json or not is_first_process())
    with ProgressWatcher(
        console, run.name, scores=Scores(run.best, read_journal(workdir / "metrics.jsonl"))
    ) as watcher:
        outcome = run_all(run, workdir, watcher=watcher)
    with suppress(OSError, SystemExit):  # standard error is closed; rich raises SystemExit then
        _tell(run, outcome, console, as_json=options.json)
    if outcome.finished:
        return 0
    return 128 + signal.SIGINT if outcome.signal in (None, signal.SIGINT) else os.EX_TEMPFAIL


def _tell(run: Run, outcome: Outcome, console: Console, *, as_json: bool) -> None:
    bundles, steps = [str(path) for path in outcome.bundles], outcome.position.total
    if as_json and is_first_process():
        best = outcome.best and str(outcome.best)
        print_json({"finished": outcome.finished, "steps": steps, "bundles": bundles, "best": best})
    elif outcome.finished:
        console.tell(f"finished: {steps} steps; bundles: {', '.join(bundles)}")
        for line in what_now(run, outcome):
            console.tell(line)
    else:
        console.tell(f"stopped after {steps} steps and saved: the same command resumes")
