"""Training: the configuration of a run, and what runs it.

    from jclip.train import Budget, Contrastive, Optimizer, Run, Stage, run

    run(Run(..., stages=(Stage("frozen", Contrastive(), ...), ...)), "runs/mine")

Names:
  run: trains all stages of a run with its evaluations, or resumes it.
  plan: plans a run without training: parameters, FLOPs, memory, time, and settings that fit.
  Run: configuration of a run: model, tokenizer, preprocessing and stages.
  Stage: one stage: objective, data, batch size, budget, optimizer, and the parameters that train.
  Contrastive, TeacherLearning: objectives.
  Budget: length of a stage, in steps, epochs or examples.
  Optimizer: update rule, learning-rate schedule and weight decay.
  Retrieval, Classification, Probe: evaluations during a run.
  Outcome: result of a run: bundles, position, and whether it has finished.
  make_step: returns the pure training step of a loss and an optimizer.
  TrainState: parameters, statistics and optimizer slots.
  Objective, Context, Program: interface of an objective, for your own.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.optimizer import Optimizer as Optimizer
    from jclip.running import run as run
    from jclip.stages import Budget as Budget
    from jclip.stages import Context as Context
    from jclip.stages import Objective as Objective
    from jclip.stages import Program as Program
    from jclip.stages import Stage as Stage
    from jclip.train.configuration import Run as Run
    from jclip.train.evaluations import Classification as Classification
    from jclip.train.evaluations import Probe as Probe
    from jclip.train.evaluations import Retrieval as Retrieval
    from jclip.train.objectives.contrastive import Contrastive as Contrastive
    from jclip.train.objectives.teacher_learning import TeacherLearning as TeacherLearning
    from jclip.train.outcome import Outcome as Outcome
    from jclip.train.planning.fitting import plan as plan
    from jclip.train.state import TrainState as TrainState
    from jclip.train.step import make_step as make_step

__all__, __getattr__, __dir__ = lazy(__name__, __file__, needs=("optax", "orbax", "grain"))
