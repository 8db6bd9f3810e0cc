"""Both papers' recipes at reduced size, ready to train. Their folders are shared: tests only read them."""

from dataclasses import replace

import pytest

from tests.train import toy
from tests.train.runs import RECIPES, reduced


@pytest.fixture(scope="session", params=RECIPES, ids=lambda recipe: recipe.split("/")[0])
def recipe(request, tmp_path_factory):
    return reduced(request.param, tmp_path_factory.mktemp("recipe") / "inputs")


@pytest.fixture(scope="session")
def chinese_clip(tmp_path_factory):
    return reduced(RECIPES[1], tmp_path_factory.mktemp("chinese_clip") / "inputs")


@pytest.fixture
def toy_run(chinese_clip, monkeypatch):
    """Two stages of the toy, two steps each; `train` trains it in this test."""
    toy.install(monkeypatch.setattr)
    return toy.toy(chinese_clip)


@pytest.fixture
def one_stage(toy_run):
    """One stage of the toy, four steps."""
    return toy.toy(replace(toy_run, stages=toy_run.stages[:1]), steps=4)
