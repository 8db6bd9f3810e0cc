"""Runs a function over all tasks: in this process, in worker processes, or on Apache Beam.

The functions return nothing; they write their results to files.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from jclip.data.batches.prefetch import serve_parent
from jclip.data.importing.survey import Task
from jclip.errors import JclipError
from jclip.extras import reported_extras
from jclip.io.files import Unfinished

Runner = Callable[[Callable[[Task], None], Sequence[Task], Callable[[Task], None]], None]
"""Runner: (function, tasks, callback for each finished task). Raises the error of a task."""


def in_processes(count: int) -> Runner:
    """Returns a runner that uses `count` processes; this process if it is 1.

    The runner raises:
      JclipError: the error of the first task, in order, that is known to have failed.
      Unfinished: a process was killed.
    """

    def run(function: Callable[[Task], None], tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        if min(count, len(tasks)) <= 1:
            for task in tasks:
                function(task)
                done(task)
            return
        # Spawned, not forked, because jax has threads.
        context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
        with ProcessPoolExecutor(min(count, len(tasks)), mp_context=context, initializer=serve_parent) as pool:
            futures = {pool.submit(function, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    future.result()
                    done(futures[future])
            except BrokenProcessPool:
                raise Unfinished(
                    "a worker process was killed, perhaps for lack of memory: resume with the same command and fewer "
                    "--workers"
                ) from None
            except JclipError as error:  # from a task, or from `done`
                pool.shutdown(cancel_futures=True)
                failed = [future for future in futures if not future.cancelled() and future.exception()]
                raise (failed[0].exception() if failed else error) from None  # type: ignore[misc]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()  # its files are complete or absent
                raise

    return run


def on_beam(options: Sequence[str] = ()) -> Runner:
    """Returns a runner that uses Apache Beam with its options: the direct runner, unless they have "--runner=…".

    All machines must see the source and the destination under the same paths. The runner raises the functions' errors.
    Raises JclipError if Apache Beam is not installed.
    """
    with reported_extras():
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

    def run(function: Callable[[Task], None], tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        runner = [] if any(word.startswith("--runner") for word in options) else ["--runner=DirectRunner"]
        with beam.Pipeline(options=PipelineOptions([*runner, *options])) as pipeline:
            _ = pipeline | beam.Create(list(tasks)) | beam.Reshuffle() | beam.Map(_Noting(function))
        for task in tasks:
            if (complaint := task.file("error")).exists():
                raise JclipError(complaint.read_text(encoding="utf-8"))
            done(task)

    return run


class _Noting:
    """Function that writes its JclipErrors to a file, because a Beam runner would wrap them and retry."""

    def __init__(self, function: Callable[[Task], None]):
        self._function = function

    def __call__(self, task: Task) -> Any:
        complaint: Path = task.file("error")
        complaint.unlink(missing_ok=True)
        try:
            self._function(task)
        except JclipError as error:
            complaint.write_text(str(error), encoding="utf-8")
