"""Runs a configuration: training and the evaluations that it asks for, from Python as from the command line."""

from collections.abc import Mapping
from pathlib import Path

from jclip.evaluators import evaluators
from jclip.io.files import check_folder
from jclip.parallel.processes import everywhere, on_first, sharing_errors
from jclip.train.configuration import Run
from jclip.train.evaluating import Evaluator
from jclip.train.logging.progress import Watcher
from jclip.train.loop import train
from jclip.train.outcome import Outcome


def run(
    config: Run,
    workdir: str | Path,
    *,
    watcher: Watcher | None = None,
    more: Mapping[str, Evaluator] | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Trains all stages of a run, with its evaluations, or what is left of them. Call it again to resume.

    Args:
      config: the run; the same on every process.
      workdir: folder for checkpoints, metrics.jsonl and one bundle per stage; the same disk for every process.
      watcher: is told of the progress.
      more: evaluators besides those of `config.evaluations`, by name: (variables) -> figures.
      stop_after: number of steps, over all stages, after which to save a checkpoint and stop.

    Raises:
      JclipError: see `jclip.train.loop.train`; or the data of an evaluation is missing or wrong.
    """
    folder = Path(workdir)
    with sharing_errors():
        on_first(lambda: check_folder(folder))  # before evaluations are opened, which may take long
        found = everywhere(lambda: evaluators(config))
        return train(config, folder, watcher=watcher, evaluators={**found, **(more or {})}, stop_after=stop_after)
