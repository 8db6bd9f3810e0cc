"""The demo with twelve times the steps, an hour or two on two cores.

jclip demo --long                                              all four runs and their report
jclip train demo/long --workdir runs/demo/long/english         the English CLIP alone, once the data is prepared
"""

from dataclasses import replace

from jclip.configs.demo import common, english
from jclip.errors import JclipError
from jclip.stages import Budget
from jclip.train.configuration import Run

FACTOR = 12.0


def scaled(run: Run, factor: float) -> Run:
    """Returns the run with `factor` times the steps of every stage. The warm-up is scaled only if `factor` is below 1.

    Raises JclipError if a stage's budget is not in steps.
    """
    stages = []
    for stage in run.stages:
        if stage.budget.steps is None:
            raise JclipError(f"stage {stage.name!r}: only a budget in steps can be scaled")
        warmup = max(1, round(stage.optimizer.warmup_steps * min(factor, 1)))
        steps = max(2, round(stage.budget.steps * factor))
        stages.append(
            replace(stage, budget=Budget(steps=steps), optimizer=replace(stage.optimizer, warmup_steps=warmup))
        )
    return replace(run, stages=tuple(stages))


def config() -> Run:
    """Returns the long English CLIP."""
    run = english.build(common.Place(home=f"{common.HOME}/long"))
    return replace(scaled(run, FACTOR), name="english-long")
