"""Programs that compute the same batches in turns, each in a process of its own, and the ratios of their speeds."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

from benchmarks.contenders import use_threads
from benchmarks.remote import Remote

Compute = Callable[[], Any]
"""Function that computes a batch once, and returns what can be compared."""
Open = Callable[[], Callable[[Any], Compute]]
"""Function that opens a program in its process, and returns the function that prepares a batch."""
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


def alternate(turns: Mapping[str, Callable[[], float]], rounds: int) -> Seconds:
    """Calls each function once in every round, in alternating order, and returns the seconds that they return."""
    seconds: Seconds = {name: [] for name in turns}
    for number in range(rounds):
        for name in turns if number % 2 == 0 else reversed(list(turns)):
            seconds[name].append(turns[name]())
    return seconds


class Program:
    """A program in its own process, with the last batch that it was given.

    Args:
      opens: opens the program.
      threads: number of processors that this process may use.
      cpu: measure processor seconds instead of time.
    """

    def __init__(self, opens: Open, threads: int, cpu: bool):
        use_threads(threads)
        self._clock = time.process_time if cpu else time.perf_counter
        self._prepare = opens()
        self._compute: Compute | None = None

    def compute(self, batch: Any) -> Any:
        """Prepares a batch, and returns the result of computing it."""
        self._compute = None  # frees its memory first, which may be large
        self._compute = self._prepare(batch)
        return self._compute()

    def seconds(self) -> float:
        """Returns the seconds in which the last batch is computed: the mean of several calls if they are short."""
        seconds = self._mean(1)  # wakes threads and caches
        if seconds < _SHORTEST_TURN:
            seconds = self._mean(min(_MOST_CALLS, 1 + int(_SHORTEST_TURN / seconds)))
        return seconds

    def _mean(self, calls: int) -> float:
        assert self._compute is not None
        begun = self._clock()
        for _ in range(calls):
            self._compute()
        return (self._clock() - begun) / calls


@contextmanager
def open_programs(programs: Mapping[str, Open], threads: int, cpu: bool = False) -> Iterator[dict[str, Remote]]:
    """Opens a `Program` in a process for each of the functions, one after another, and ends the processes.

    Args:
      programs: functions that can be pickled, by name.
      threads, cpu: as in `Program`.
    """
    with ExitStack() as stack:
        found: dict[str, Remote] = {}
        for name, opens in programs.items():
            found[name] = stack.enter_context(closing(Remote(Program, opens, threads, cpu)))
            found[name].attributes()  # opens it
        yield found


def take_turns(programs: Mapping[str, Remote], rounds: int) -> Seconds:
    """Lets programs compute their last batch in turns."""
    return alternate({name: partial(each.call, "seconds") for name, each in programs.items()}, rounds)
