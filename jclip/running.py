"""Runs a configuration: training with its evaluations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jclip.checkpoint import newest_record
from jclip.config import leaves
from jclip.errors import JclipError
from jclip.evaluators import evaluators
from jclip.io.files import check_folder
from jclip.loading import converted_before, local_bundle
from jclip.marks import Mark, replaced
from jclip.parallel.processes import everywhere, is_first_process, on_first, sharing_errors
from jclip.plain import complain
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
    """Trains the remaining stages of a run, with its evaluations. Call it again to resume.

    Args:
      config: the run; the same on every process.
      workdir: folder for checkpoints, metrics.jsonl and one bundle per stage, on a disk that all processes share.
      watcher: observer of the progress.
      more: further evaluators, by name: variables -> figures.
      stop_after: number of steps, over all stages, after which to save a checkpoint and stop.

    Raises:
      JclipError: see `jclip.train.loop.train`; or the data of an evaluation is missing or wrong, or the source of a
        bundle cannot be converted.
    """
    folder = Path(workdir)
    with sharing_errors():
        on_first(lambda: check_folder(folder))  # before evaluations are opened, which may take long
        config = everywhere(lambda: _with_bundles(config, newest_record(folder / "checkpoints")))
        found = everywhere(lambda: evaluators(config))
        return train(config, folder, watcher=watcher, evaluators={**found, **(more or {})}, stop_after=stop_after)


def _with_bundles(config: Run, record: Mapping[str, Any]) -> Run:
    """Returns a run whose starting points and teachers are bundles on the disk: other sources are converted.

    Args:
      config: the run.
      record: record of the checkpoint from which it resumes; empty for a new run. A repository keeps the commit that
        the run began with, even if the hub has a newer one.
    """
    marked = record.get("folders", ())
    folders = [value for name, value in leaves(record.get("config")) if name in marked and isinstance(value, str)]

    def folder_of(source: str) -> str:
        try:
            found = local_bundle(converted_before(source, folders), _say_once) if source else Path(source)
        except JclipError:
            if record:  # it no longer needs its starting point; a teacher that is missing is reported when it is read
                return source
            raise
        return source if found == Path(source) else str(found)

    return replaced(config, Mark.BUNDLE, folder_of)


def _say_once(line: str) -> None:
    """Prints a line of a conversion, of which all processes of a run say the same."""
    if is_first_process():
        complain(line)
