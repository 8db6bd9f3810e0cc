"""Progress of the demo: a line with run, stage and time left for each stage, and recalls at each evaluation."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from jclip.console import Console
from jclip.demo.runs import DemoRun
from jclip.demo.scores import EVALUATION
from jclip.evaluate.languages import LANGUAGE_NAMES
from jclip.train.logging.progress import ProgressWatcher

Place = tuple[str, int]
"""(key of a run, number of its stage)"""


class Schedule:
    """Time left until the last of several stages ends, from their expected durations and the speed so far.

    >>> schedule = Schedule({("english", 0): 60.0, ("altclip", 0): 30.0, ("altclip", 1): 10.0})
    >>> schedule.begin(("english", 0), now=0.0)
    100.0
    >>> schedule.begin(("altclip", 0), now=90.0)  # half as fast as expected: 90 s, not 60
    60.0
    """

    def __init__(self, expected: Mapping[Place, float]):
        self._expected = dict(expected)
        self._begun: tuple[Place, float] | None = None
        self._took = self._planned = 0.0

    def begin(self, place: Place, now: float) -> float:
        """Notes that a stage begins at `now`, in seconds; returns the seconds left."""
        if self._begun:
            before, then = self._begun
            self._took, self._planned = self._took + now - then, self._planned + self._expected[before]
        self._begun = place, now
        places = list(self._expected)
        left = sum(self._expected[each] for each in places[places.index(place) :])
        return left * (self._took / self._planned if self._planned else 1.0)


class DemoWatcher:
    """Progress of run `number` of the demo: a progress bar, and a line at each start of a stage and each evaluation.

    All runs share one `schedule`.
    """

    def __init__(self, console: Console, runs: Sequence[DemoRun], number: int, schedule: Schedule):
        self._console, self._runs, self._number, self._schedule = console, runs, number, schedule
        self._run = runs[number]
        self._bar = ProgressWatcher(console, self._run.title, lines=5)
        self.stepped = self._bar.stepped

    def __enter__(self) -> "DemoWatcher":
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.__exit__(kind, error, tb)

    def stage_begins(self, name: str, step: int, steps: int, **place: Any) -> None:
        """Prints the run, the stage and the time left; while a stage fills its cache, shows only the bar."""
        stages = [stage.name for stage in self._run.run.stages]
        if name in stages:
            stage = stages.index(name)
            minutes = self._schedule.begin((self._run.key, stage), time.perf_counter()) / 60
            left = f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
            self._console.tell(
                f"run {self._number + 1} of {len(self._runs)}, {self._run.title}; stage {stage + 1} of {len(stages)}, "
                f"{name}: {steps:,} steps; {left}"
            )
        self._bar.stage_begins(name, step, steps, **place)

    def logged(self, record: Mapping[str, Any]) -> None:
        """Shows a record; of an evaluation, only R@1 of known concepts, in the first language and the others' mean."""
        if record["kind"] != "evaluation":
            self._bar.logged(record)
            return
        first, *others = self._run.languages
        recalls = {language: record[f"{EVALUATION}/{language}/known/t2i_r1"] for language in self._run.languages}
        words = [f"{LANGUAGE_NAMES[first]} {recalls[first]:.1%}"]
        if others:
            words.append(
                f"mean of {len(others)} other languages {sum(recalls[each] for each in others) / len(others):.1%}"
            )
        self._console.tell(f"{self._run.title}, step {record['total']:,}: R@1 text to image {', '.join(words)}")
