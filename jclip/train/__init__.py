"""Training: the configuration of a run, and what runs it.

    from jclip.train import Budget, Contrastive, Optimizer, Run, Stage, run

    run(Run(..., stages=(Stage("frozen", Contrastive(), ...), ...)), "runs/mine")

The names are imported from their modules when they are first used.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jclip.optimizer import Optimizer
    from jclip.stages import Budget, Context, Objective, Program, Stage
    from jclip.train.configuration import Run
    from jclip.train.objectives.contrastive import Contrastive
    from jclip.train.objectives.teacher_learning import TeacherLearning
    from jclip.train.outcome import Outcome
    from jclip.train.state import TrainState
    from jclip.train.step import make_step

    run: Callable[..., Outcome]

_HOMES = {
    "Run": "jclip.train.configuration",
    "Stage": "jclip.stages",
    "Contrastive": "jclip.train.objectives.contrastive",
    "TeacherLearning": "jclip.train.objectives.teacher_learning",
    "Budget": "jclip.stages",
    "Optimizer": "jclip.optimizer",
    "run": "jclip.running",
    "make_step": "jclip.train.step",
    "TrainState": "jclip.train.state",
    "Outcome": "jclip.train.outcome",
    "Objective": "jclip.stages",
    "Context": "jclip.stages",
    "Program": "jclip.stages",
}

__all__ = [
    "Budget",
    "Context",
    "Contrastive",
    "Objective",
    "Optimizer",
    "Outcome",
    "Program",
    "Run",
    "Stage",
    "TeacherLearning",
    "TrainState",
    "make_step",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jclip.train' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
