"""The demo with twelve times the steps: an hour or two on two cores shows what more training reaches.

jclip demo --long                                                  all four runs and their report
jclip train configs/demo/long.py --workdir runs/demo/long/english      the English CLIP alone, data prepared
"""

from dataclasses import replace

from jclip.configs.demo import common, english
from jclip.stages import Budget
from jclip.train.configuration import Run

FACTOR = 12.0


def scaled(run: Run, factor: float) -> Run:
    """The run with `factor` times the steps of every stage; a warm-up shrinks along but never grows."""
    stages = []
    for stage in run.stages:
        assert stage.budget.steps is not None, "the demo counts steps"
        warmup = max(1, round(stage.optimizer.warmup_steps * min(factor, 1)))
        steps = max(2, round(stage.budget.steps * factor))
        stages.append(
            replace(stage, budget=Budget(steps=steps), optimizer=replace(stage.optimizer, warmup_steps=warmup))
        )
    return replace(run, stages=tuple(stages))


def config() -> Run:
    """The English CLIP, long."""
    run = english.build(common.Place(home=f"{common.HOME}/long"))
    return replace(scaled(run, FACTOR), name="english-long")
