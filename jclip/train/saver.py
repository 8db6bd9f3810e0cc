"""Saves states during a run: only finite ones, and always before an error ends the run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError
from jclip.parallel.processes import is_in_step
from jclip.train.evaluating import Evaluating
from jclip.train.health import all_finite, first_broken
from jclip.train.logging.run_log import RunLog
from jclip.train.parked import on_devices
from jclip.train.state import TrainState


class Saver:
    """Checkpoints of a run, with its identity, its log and the scores of its evaluations."""

    def __init__(
        self, checkpoints: Checkpoints, identity: dict[str, Any], log: RunLog, evaluating: Evaluating, place: str
    ):
        self._checkpoints, self._identity, self._log = checkpoints, identity, log
        self._evaluating, self._place = evaluating, place

    def save(self, state: TrainState, position: Position) -> None:
        """Saves the state in the background. Raises JclipError if the state is not finite or cannot be written."""
        if not all_finite(state):
            raise JclipError(
                f"{first_broken(state)} is not finite after {position.total} steps, and nothing is saved. "
                f"{self._advice()}"
            )
        with on_devices(state) as whole:
            score = self._evaluating.score(position)
            self._checkpoints.save(position, whole, self._identity, self._log.records, score)

    def is_best(self, position: Position) -> bool:
        """Returns whether this step's score is higher than those of all checkpoints."""
        score, best = self._evaluating.score(position), self._checkpoints.best_score()
        return score is not None and (best is None or score > best)

    @contextmanager
    def saving_before_errors(self, state: TrainState, position: Position) -> Iterator[None]:
        """Saves the state if the block raises an error on all processes, so that no step is lost."""
        try:
            yield
        except Exception as error:
            if position.total and is_in_step(error):
                try:
                    self.save(state, position)
                    self._checkpoints.wait()
                except JclipError as failure:
                    if isinstance(error, JclipError):
                        raise JclipError(f"{error}; and then: {failure}") from error
                    error.add_note(str(failure))
            raise

    def finite(
        self, metrics: Mapping[str, jax.Array], state: TrainState, position: Position, stage: str
    ) -> dict[str, float]:
        """Returns a step's metrics as floats. Raises JclipError if the loss is not finite.

        The message names the first parameter of `state` that is not finite.
        """
        figures = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite(figures["loss"]):
            broken = first_broken(state)
            culprit = f"{broken} is not finite" if broken else "all parameters are finite, so the batch is the cause"
            raise JclipError(
                f"stage {stage!r}: the loss is {figures['loss']} at step {position.step}; {culprit}. {self._advice()}"
            )
        return figures

    def _advice(self) -> str:
        saved = (
            f"The last checkpoint in {self._place} is from an earlier step"
            if self._checkpoints.numbers()
            else "There is no earlier checkpoint, so the same command starts from the beginning"
        )
        return f"{saved}: lower the learning rate or clip the gradients"
