"""Makes a row of things ahead of who takes them: in a thread, or in worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_AHEAD = 2  # things, where a thread makes them


def ahead(make: Callable[[int], T], start: int, workers: int) -> Generator[T, None, None]:
    """make(start), make(start + 1), …, without end, in order whoever makes them; close it to end thread or processes.

    Args:
      make: a pure function. What it raises ends the row; with workers it and its results travel between processes.
      start: the first number.
      workers: processes; 0 for a thread.
    """
    import grain

    numbers = grain.MapDataset.source(_Row(make, start))
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # by whoever runs under absl; grain's workers ask for flags either way
            flags.FLAGS.mark_as_parsed()
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        working = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        made = iter(numbers.to_iter_dataset(reading).mp_prefetch(working, worker_init_fn=_begin))
    else:
        made = iter(numbers.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)))
    try:
        yield from made
    finally:
        made.close()


def serve_parent() -> None:
    """In a worker: Ctrl-C, which a terminal sends to all, is for its parent; and it does not outlive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _begin(worker: int, workers: int) -> None:
    del worker, workers
    serve_parent()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)  # nobody is there to hear of anything


class _Row(Sequence[T], Generic[T]):
    """As grain reads a source."""

    def __init__(self, make: Callable[[int], T], start: int):
        self._make, self._start = make, start

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, number: Any) -> Any:
        return self._make(self._start + int(number))
