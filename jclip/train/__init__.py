"""Training: a run is a list of stages over one model.

Names:
  Run: a run: model, tokenizer, preprocessing and stages.
  Teacher: the teacher of a run's teacher-learning stages.
  Stage: a stage: objective, data, budget, optimizer, and the parameters to train.
  Budget: a stage's length, in steps, epochs or examples.
  Optimizer: update rule, learning-rate schedule and weight decay.
  Outcome: the result of `train`: the bundles, and whether the run has finished.
  train: runs all stages of a run, or resumes it.
  TrainState: parameters, optimizer state and step, for your own training loop.
  make_step: returns a train step of an objective and an optimizer.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.optimizer import Optimizer as Optimizer
    from jclip.stages import Budget as Budget
    from jclip.stages import Stage as Stage
    from jclip.train.loop import train as train
    from jclip.train.outcome import Outcome as Outcome
    from jclip.train.run import Run as Run
    from jclip.train.run import Teacher as Teacher
    from jclip.train.state import TrainState as TrainState
    from jclip.train.step import make_step as make_step

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "Run": "jclip.train.run:Run",
        "Teacher": "jclip.train.run:Teacher",
        "Stage": "jclip.stages:Stage",
        "Budget": "jclip.stages:Budget",
        "Optimizer": "jclip.optimizer:Optimizer",
        "Outcome": "jclip.train.outcome:Outcome",
        "train": "jclip.train.loop:train",
        "TrainState": "jclip.train.state:TrainState",
        "make_step": "jclip.train.step:make_step",
    },
    needs=("optax", "orbax", "grain"),
)
