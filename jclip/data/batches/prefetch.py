"""Prefetches a sequence of results in a thread or in worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_THREAD_BUFFER = 2  # results


def prefetch(make: Callable[[int], T], start: int, workers: int) -> Generator[T, None, None]:
    """Yields make(start), make(start + 1), … in order, without end. Closing it ends the thread or the processes.

    `make` is a pure function; its errors end the sequence. With `workers` processes, it and its results are pickled;
    with 0, a thread calls it.
    """
    import grain

    numbers = grain.MapDataset.source(_Sequence(make, start))
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain's workers read absl's flags, which only absl's `app.run` parses
            flags.FLAGS.mark_as_parsed()
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        working = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        made = iter(numbers.to_iter_dataset(reading).mp_prefetch(working, worker_init_fn=_begin))
    else:
        made = iter(numbers.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_THREAD_BUFFER)))
    try:
        yield from made
    finally:
        made.close()


def serve_parent() -> None:
    """Makes a worker process ignore Ctrl-C, which its parent handles, and end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _begin(worker: int, workers: int) -> None:
    del worker, workers
    serve_parent()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)  # without clean-up, because the parent is gone


class _Sequence(Sequence[T], Generic[T]):
    """Endless sequence of `make`'s results, as a source for grain."""

    def __init__(self, make: Callable[[int], T], start: int):
        self._make, self._start = make, start

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, number: Any) -> Any:
        return self._make(self._start + int(number))
