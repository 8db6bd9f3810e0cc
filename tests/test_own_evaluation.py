"""Evaluations that another package adds to a run."""

from dataclasses import dataclass, replace

import pytest

from jclip.cli.configs import load_config
from jclip.config import from_json, kind_of, to_json
from jclip.evaluators import open_evaluation
from jclip.train.configuration import Run
from jclip.train.evaluations import EvaluationConfig


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class NumberOfPictures(EvaluationConfig):
    """Toy evaluation whose figure is one of its fields."""

    name: str
    pictures: int


def test_a_run_takes_evaluations_of_another_package():
    run = replace(load_config("chinese_clip/vit_b_16"), evaluations=(NumberOfPictures("toy", 7),))
    read = from_json(Run, to_json(run)).evaluations[0]
    assert read == NumberOfPictures("toy", 7)
    with pytest.raises(TypeError, match="register a function for NumberOfPictures"):
        open_evaluation(read)
    open_evaluation.register(NumberOfPictures, lambda asked: lambda model: iter([("", {"n": asked.pictures})]))
    assert list(open_evaluation(read)(None)) == [("", {"n": 7})]
