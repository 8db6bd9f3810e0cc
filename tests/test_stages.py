"""Stages: budgets by hand, and which parameters train."""

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.optimizer import Optimizer
from jclip.stages import Budget, Stage
from jclip.train.layout import layout, merge, split
from jclip.train.objectives.contrastive import Contrastive

PARAMS = {"image": {"kernel": np.ones((2, 2))}, "text": {"kernel": np.zeros(3)}, "logit_scale": np.array(2.0)}
PATHS = {"image/kernel": 0, "text/kernel": 0, "logit_scale": 0}


def stage(trains):
    return Stage("frozen", Contrastive(), (), 8, Budget(steps=1), Optimizer(), trains=trains)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [(Budget(steps=7), 7), (Budget(epochs=1.5), 15), (Budget(epochs=1.01), 11), (Budget(examples=9), 1)],
)
def test_budget_in_steps(budget, steps):
    assert budget.in_steps(batch_size=10, examples_per_epoch=100) == steps


@pytest.mark.parametrize("budget", [Budget(), Budget(steps=1, epochs=1)])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(JclipError, match="budget"):
        budget.in_steps(10, 100)


def test_rules_choose_what_trains():
    assert layout(stage((("image/.*", False), (".*", True))), PATHS).trains == {"text/kernel", "logit_scale"}


def test_a_stage_that_trains_nothing_is_refused():
    with pytest.raises(JclipError, match="stage 'frozen' trains nothing"):
        layout(stage(((".*", False),)), PATHS)


def test_a_misspelt_rule_is_refused():
    with pytest.raises(JclipError, match="imgae"):
        layout(stage((("imgae/.*", False), (".*", True))), PATHS)


def test_split_and_merge_are_inverse():
    trainable, frozen = split(PARAMS, frozenset({"text/kernel", "logit_scale"}))
    assert set(trainable) == {"text", "logit_scale"} and set(frozen) == {"image"}
    merged = merge(trainable, frozen)
    assert merged.keys() == PARAMS.keys() and merged["image"]["kernel"] is PARAMS["image"]["kernel"]
