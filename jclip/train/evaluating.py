"""Evaluations during a run, and their use: the best checkpoint, and early stopping."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jclip.checkpoint import Position
from jclip.errors import JclipError
from jclip.models.build import variables_of
from jclip.parallel.processes import broadcast, everywhere
from jclip.train.configuration import Run
from jclip.train.logging.run_log import RunLog
from jclip.train.parked import on_devices
from jclip.train.state import TrainState, whole_params

Evaluator = Callable[[dict[str, Any]], Mapping[str, float]]
"""Variables -> figures; called on every process."""


class Evaluating:
    """Evaluators of a run, by name. The figure "r1" of the evaluator "toy" is logged as "toy/r1"."""

    def __init__(self, run: Run, evaluators: Mapping[str, Evaluator], log: RunLog):
        self._run, self._evaluators, self._log = run, evaluators, log
        self._latest: tuple[int, float] | None = None

    def evaluate(self, state: TrainState, position: Position) -> None:
        """Calls every evaluator and logs the figures, unless that step has been evaluated.

        Raises an evaluator's error on every process, and JclipError if none gives the figure that `run.best` names.
        """
        if self._log.has("evaluation", position.total):
            return
        figures: dict[str, float] = {}
        with on_devices(state) as whole:
            for name, evaluator in self._evaluators.items():
                found = everywhere(lambda call=evaluator: dict(call(variables_of(whole_params(whole), whole.stats))))  # type: ignore[misc]
                figures |= {f"{name}/{key}": float(value) for key, value in found.items()}
        figures = broadcast(figures)  # processors may round differently, but all processes must decide the same
        if not figures:
            return
        self._log.write("evaluation", position, figures)
        if self._run.best:
            if self._run.best not in figures:
                raise JclipError(f"best: no evaluation gives {self._run.best!r}: choose one of {', '.join(figures)}")
            if not np.isnan(figures[self._run.best]):
                self._latest = position.total, figures[self._run.best]

    def score(self, position: Position) -> float | None:
        """Returns the figure `run.best` of this step; None if it was not evaluated or is NaN."""
        return self._latest[1] if self._latest and self._latest[0] == position.total else None

    def patience_is_spent(self, position: Position) -> bool:
        """Returns whether the stage should end early, after this step's evaluation."""
        stage = self._run.stages[position.stage].name
        return is_spent(self._run.patience, self._run.best, stage, position.total, self._log.records)


def is_spent(patience: int, figure: str, stage: str, total: int, records: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether the last `patience` evaluations of a stage are no better than an earlier one.

    False if `patience` is 0, or if the run was not evaluated after `total` steps. Higher figures are better.
    """
    if not patience:
        return False
    found = [
        (record["total"], record[figure])
        for record in records
        if (record["kind"], record.get("stage")) == ("evaluation", stage) and figure in record
    ]
    values = [value if np.isfinite(value) else -np.inf for _, value in found]
    now = bool(found) and found[-1][0] == total
    return now and len(values) > patience and max(values[-patience:]) <= max(values[:-patience])
