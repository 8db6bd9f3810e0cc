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

from jclip.cli.configs import parse
from jclip.cli.train_words import what_now
from jclip.console import Console
from jclip.errors import JclipError
from jclip.io.files import check_folder
from jclip.parallel.processes import alone, connect, first, is_first, sharing_errors
from jclip.plain import complain, print_json
from jclip.running import run as run_all
from jclip.train.configuration import Run
from jclip.train.logging.telemetry import ProgressWatcher, read_journal
from jclip.train.outcome import Outcome
from jclip.train.scores import Scores

LOST = 128 + signal.SIGABRT
"""The exit code where another process was lost: what jax itself ends with when it notices that first."""


@dataclass(frozen=True)
class Options:
    """Trains all stages of CONFIG; started again, it resumes where it stopped.

    Any field of the configuration can be set: --stages.0.batch-size 256. `jclip train CONFIG --help` lists them.

    Attributes:
      config: a Python file whose config() builds the run.
      workdir: holds checkpoints, metrics.jsonl and a bundle a stage; default runs/NAME.
      reduced: shrink the towers, and train two steps a stage on synthetic data: does this recipe run here?
      json: print the outcome as JSON, and no progress.
      distributed: this is one of several processes of a run: join the others, as a TPU pod, Slurm, Kubernetes or Open
        MPI names them. JCLIP_COORDINATOR, JCLIP_PROCESSES and JCLIP_PROCESS in the environment do it by hand.

    Exit code: 0 when finished; 75 when SIGTERM, or SIGHUP of a lost terminal, stopped it after saving: start it again;
    130 when Ctrl-C did; 134 when another process was lost.
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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        several = not alone()
        code, words = LOST, f"a process of this run was lost, or a device failed: {reason}"
        if "RESOURCE_EXHAUSTED" in reason:
            code, words = (
                1,
                f"the devices have too little memory ({reason}): `jclip plan CONFIG --memory GIB` says what fits",
            )
            if not several:
                raise JclipError(words) from None
        elif not several:
            raise
        # To wait for the others at the end, as jax would, is in vain where one of them is gone.
        complain(f"jclip train: {words}")
        os._exit(code)


def _train(arguments: Sequence[str]) -> int:
    options, run = parse(Options, arguments, "train", lambda options: connect(options.distributed))
    workdir = options.workdir or Path("runs") / ("reduced" if options.reduced else "") / run.name
    first(lambda: check_folder(workdir))
    console = Console(stderr=True, quiet=options.json or not is_first())
    with ProgressWatcher(
        console, run.name, scores=Scores(run.best, read_journal(workdir / "metrics.jsonl"))
    ) as watcher:
        outcome = run_all(run, workdir, watcher=watcher)
    with suppress(OSError, SystemExit):  # whoever watched is gone; the second is rich's
        _tell(run, outcome, console, as_json=options.json)
    if outcome.finished:
        return 0
    return 128 + signal.SIGINT if outcome.signal in (None, signal.SIGINT) else os.EX_TEMPFAIL


def _tell(run: Run, outcome: Outcome, console: Console, *, as_json: bool) -> None:
    bundles, steps = [str(path) for path in outcome.bundles], outcome.position.total
    if as_json and is_first():
        best = outcome.best and str(outcome.best)
        print_json({"finished": outcome.finished, "steps": steps, "bundles": bundles, "best": best})
    elif outcome.finished:
        console.tell(f"finished: {steps} steps; bundles: {', '.join(bundles)}")
        for line in what_now(run, outcome):
            console.tell(line)
    else:
        console.tell(f"stopped after {steps} steps, saved: the same command goes on from here")
