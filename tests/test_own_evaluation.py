"""Evaluations that another package adds to a run."""

from dataclasses import dataclass, replace

import pytest

from jclip.cli.train_words import command
from jclip.config import from_json, to_json
from jclip.configs import load
from jclip.evaluators import evaluators
from jclip.train import EvaluationConfig, Run, kind_of


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class NumberOfPictures(EvaluationConfig):
    """Toy evaluation whose figure is one of its fields."""

    name: str
    pictures: int

    def open(self):
        return lambda model: iter([("", {"n": self.pictures})])


def test_a_run_takes_evaluations_of_another_package(monkeypatch):
    run = replace(load("chinese_clip/vit_b_16"), evaluations=(NumberOfPictures("toy", 7),))
    read = from_json(Run, to_json(run))
    assert read.evaluations == (NumberOfPictures("toy", 7),)
    monkeypatch.setattr("jclip.evaluators.load_tokenizer", lambda folder: None)
    assert evaluators(read)["toy"]({}) == {"n": 7}
    assert command(run, "b") == "jclip eval retrieval b DATA"  # no command of `jclip eval` has its fields


def test_one_without_data_is_refused():
    with pytest.raises(TypeError, match="abstract"):
        type("Blind", (EvaluationConfig,), {})()
