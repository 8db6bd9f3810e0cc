"""Progress of embedding, as a record that a bar, a service or a program shows."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """State of embedding at one moment.

    Attributes:
      done: number of images and texts that need nothing more, skipped and unchanged ones included.
      total: number of images and texts of the sources.
      skipped: number of images that could not be read.
      rate: images and texts per second, recently; 0 if not known yet.
      seconds_left: estimate; None if not known yet.
      resumed: number of images and texts that an interrupted run had done.
    """

    done: int
    total: int
    skipped: int = 0
    rate: float = 0.0
    seconds_left: float | None = None
    resumed: int = 0


Watcher = Callable[[Progress], None]
"""Function that is called with the progress, at most a few times per second."""


class Meter:
    """Measures the rate of work, and reports it to a watcher.

    Args:
      watcher: called when work begins, at most each `interval` seconds, and when it ends; None for nobody.
      total: number of items.
      done: number of items that were done before; they do not count for the rate.
      resumed: number of them that an interrupted run had done.
      clock: returns seconds.
    """

    def __init__(
        self,
        watcher: Watcher | None,
        total: int,
        done: int = 0,
        skipped: int = 0,
        resumed: int = 0,
        interval: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._watcher, self._total, self._clock, self._interval = watcher, total, clock, interval
        self._done, self._skipped, self._resumed, self._told = done, skipped, resumed, clock()
        self._marks = [(self._told, done)]
        self._tell()

    def advance(self, *, skipped: int = 0) -> None:
        """Notes that one more item is done; `skipped` is 1 if it could not be read."""
        self._done, self._skipped = self._done + 1, self._skipped + skipped
        now = self._clock()
        if now - self._told >= self._interval:
            self._told = now
            self._marks = [*self._marks, (now, self._done)][-_MARKS:]
            self._tell()

    def finish(self) -> None:
        """Reports the end."""
        self._tell()

    def _tell(self) -> None:
        if self._watcher is None:
            return
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        rate = (done - before) / (now - then) if now > then else 0.0
        left = (self._total - self._done) / rate if rate else None
        if self._done >= self._total:
            left = 0.0
        self._watcher(Progress(self._done, self._total, self._skipped, rate, left, self._resumed))


_MARKS = 100
