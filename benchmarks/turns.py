"""Turns of programs that compute the same batches, each in a process of its own."""

import contextlib
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.contenders import use_threads

Compute = Callable[[], Any]
"""Function that computes a batch once, and returns what can be compared."""
Open = Callable[[], Callable[[Any], Compute]]
"""Function that opens a program in its process, and returns what prepares a batch."""
Seconds = dict[str, list[float]]
"""Seconds of a batch by program, one number for each round."""

_SHORTEST_TURN, _MOST_CALLS = 0.3, 20


class Ratio(NamedTuple):
    """Ratio of two speeds over all rounds."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


def ratio(ours: list[float], theirs: list[float]) -> Ratio:
    """Returns the ratio of the speed of the first to that of the second, from their seconds in the same rounds."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


@contextlib.contextmanager
def processes(programs: Mapping[str, Open], threads: int, cpu: bool = False) -> Iterator[dict[str, Connection]]:
    """Yields a connection to the process of each program, by name.

    Args:
      programs: functions that can be pickled.
      threads: number of processors that each process may use.
      cpu: measure processor seconds instead of time.
    """
    spawn, ends = multiprocessing.get_context("spawn"), {}
    try:
        for name, opens in programs.items():
            ends[name], theirs = spawn.Pipe()
            spawn.Process(target=_serve, args=(theirs, opens, threads, cpu)).start()
            theirs.close()  # so that recv raises if the program dies
            ends[name].recv()
        yield ends
    finally:
        for end in ends.values():
            end.close()
        for process in multiprocessing.active_children():
            process.join()


def computed(end: Connection, batch: Any) -> Any:
    """Gives a program a batch, and returns what it computes first."""
    end.send(("batch", batch))
    return end.recv()


def take_turns(ends: Mapping[str, Connection], rounds: int) -> Seconds:
    """Lets the programs compute their last batch in turns, in alternating order."""
    seconds = defaultdict(list)
    for number in range(rounds):
        for name in ends if number % 2 == 0 else reversed(ends):
            ends[name].send(("go", None))
            seconds[name].append(ends[name].recv())
    return dict(seconds)


def apart(function: Any, *arguments: Any) -> None:
    """Calls a function in another process, so that this one stays small. Raises SystemExit if it fails."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")


def _serve(asked: Connection, opens: Open, threads: int, cpu: bool) -> None:
    """Runs a program: a batch is answered by its result, and "go" by the seconds of a call."""
    use_threads(threads)
    clock = time.process_time if cpu else time.perf_counter
    prepare, compute = opens(), None
    asked.send("open")
    with contextlib.suppress(EOFError):
        while True:
            message, batch = asked.recv()
            if message == "batch":
                compute = None  # whose memory may be large
                compute = prepare(batch)
                asked.send(compute())
                continue
            seconds = _seconds(compute, clock, 1)  # wakes threads and caches; a long call need not be repeated
            if seconds < _SHORTEST_TURN:
                seconds = _seconds(compute, clock, min(_MOST_CALLS, 1 + int(_SHORTEST_TURN / seconds)))
            asked.send(seconds)


def _seconds(compute: Any, clock: Callable[[], float], calls: int) -> float:
    """Returns the mean seconds of a call."""
    begin = clock()
    for _ in range(calls):
        compute()
    return (clock() - begin) / calls
