"""Builds the evaluators of a run from its configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import open_classification, open_probe, open_retrieval
from jclip.evaluate.tasks import classification, probe, retrieval
from jclip.evaluate.tasks.evaluation import Encodes
from jclip.images.preprocess import Picture
from jclip.inference import Encoder
from jclip.tokenizers.text import load_tokenizer
from jclip.train.configuration import Run
from jclip.train.evaluating import Evaluator
from jclip.train.evaluations import Classification, EvaluationConfig, Probe, Retrieval

_Figures = Iterator[tuple[str, Mapping[str, float]]]
"""Figures by language, prompts or number of shots."""


@dataclass(frozen=True)
class _Snapshot:
    """Model with the variables of one step."""

    encoder: Encoder
    variables: dict[str, Any]

    def encode_image(self, pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        return self.encoder.images(self.variables, pictures)

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        return self.encoder.texts(self.variables, sentences)


def evaluators(run: Run, batch_size: int = 256) -> dict[str, Evaluator]:
    """Opens and checks the data of `run.evaluations`, and returns the evaluators by name.

    All devices together encode `batch_size` images or texts at once. Raises JclipError if data are missing or wrong.
    The message names the evaluation.
    """
    if not run.evaluations:
        return {}
    encoder = Encoder(
        run.model, load_tokenizer(Path(run.tokenizer)), run.preprocessing, run.stages[-1].context_length, batch_size
    )
    made: dict[str, Evaluator] = {}
    for one in run.evaluations:
        try:
            made[one.name] = _evaluator(open_evaluation(one), encoder)
        except JclipError as error:
            raise JclipError(f"evaluation {one.name!r}: {error}") from None
    return made


def _evaluator(figures_of: Callable[[Encodes], _Figures], encoder: Encoder) -> Evaluator:
    def evaluate(variables: dict[str, Any]) -> dict[str, float]:
        found = list(figures_of(_Snapshot(encoder, variables)))
        return {
            f"{key}/{name}" if len(found) > 1 else name: value for key, some in found for name, value in some.items()
        }

    return evaluate


@singledispatch
def open_evaluation(config: EvaluationConfig) -> Callable[[Encodes], _Figures]:
    """Opens the data of an evaluation, and returns a function: model -> its figures by language, prompts or shots.

    Other packages register a function for their own kind of evaluation: `@open_evaluation.register`.
    """
    raise TypeError(f"register a function for {type(config).__name__} with jclip.evaluators.open_evaluation.register")


@open_evaluation.register
def _retrieval(config: Retrieval) -> Callable[[Encodes], _Figures]:
    tests = open_retrieval(Path(config.data), config.protocol, config.split, config.languages)
    unanswered = next((task for task in tests.tasks if not task.has_answers), None)
    if unanswered is not None:
        raise JclipError(f"{unanswered.name} has no answers, so nothing can be scored: choose another split")

    def figures(model: Encodes) -> _Figures:
        for task, image_nd, text_md in retrieval.encode_tasks(tests.tasks, model):
            yield task.language, task.score(image_nd, text_md)

    return figures


@open_evaluation.register
def _classification(config: Classification) -> Callable[[Encodes], _Figures]:
    tests = open_classification(Path(config.data), config.dataset, config.prompts, config.classes, config.split)

    def figures(model: Encodes) -> _Figures:
        for one in classification.evaluate(tests, model, resamples=0):
            yield one.ensemble.title, one.result.figures

    return figures


@open_evaluation.register
def _probe(config: Probe) -> Callable[[Encodes], _Figures]:
    splits = open_probe(Path(config.data), config.dataset)
    shots = [count or None for count in config.shots]

    def figures(model: Encodes) -> _Figures:
        found = probe.evaluate(splits, model, shots, seeds=config.seeds, resamples=0)
        yield from ((str(count or "all"), one.result.figures) for count, one in zip(shots, found, strict=True))

    return figures
