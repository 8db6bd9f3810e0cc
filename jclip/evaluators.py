"""A run's evaluations, which are plain data, as the callables that the training loop takes."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jclip.errors import JclipError
from jclip.evaluate import probing
from jclip.evaluate.asking import class_tests, retrieval_tests
from jclip.evaluate.metrics import classification
from jclip.evaluate.retrieving import encoded, has_answers
from jclip.inference import Encoder
from jclip.tokenizers.text import load_tokenizer
from jclip.train.configuration import Run
from jclip.train.evaluations import Classification, Evaluation, Probe, Retrieval
from jclip.train.loop import Evaluator


def evaluators(run: Run, batch_size: int = 256) -> dict[str, Evaluator]:
    """One for each evaluation, by name; their data are read, and held against their protocols, here and now.

    Args:
      run: whose model, tokenizer, preprocessing and context length they use.
      batch_size: pictures or texts encoded at once, by all devices together.

    Raises:
      JclipError: data that are not there, or not what they should be; the evaluation is named.
    """
    if not run.evaluations:
        return {}
    encoder = Encoder(
        run.model, load_tokenizer(Path(run.tokenizer)), run.preprocessing, run.stages[-1].context_length, batch_size
    )
    made: dict[str, Evaluator] = {}
    for one in run.evaluations:
        try:
            made[one.name] = _made(one, encoder)
        except JclipError as error:
            raise JclipError(f"evaluation {one.name!r}: {error}") from None
    return made


def _made(asked: Evaluation, encoder: Encoder) -> Evaluator:
    if isinstance(asked, Retrieval):
        return _retrieval(asked, encoder)
    if isinstance(asked, Classification):
        return _classification(asked, encoder)
    return _probe(asked, encoder)


def _retrieval(asked: Retrieval, encoder: Encoder) -> Evaluator:
    tests = retrieval_tests(Path(asked.data), asked.protocol, asked.split, asked.languages)

    secret = next((task for task in tests.tasks if not has_answers(task)), None)
    if secret is not None:
        raise JclipError(f"{secret.name} has no answers, so nothing can be scored: choose another split")

    def evaluate(variables: dict[str, Any]) -> Mapping[str, float]:
        figures: dict[str, float] = {}
        for task, images_nd, texts_md in encoded(
            tests.tasks, partial(encoder.images, variables), partial(encoder.texts, variables)
        ):
            found = task.score(images_nd, texts_md)
            figures |= {_named(name, task.language, len(tests.tasks)): value for name, value in found.items()}
        return figures

    return evaluate


def _classification(asked: Classification, encoder: Encoder) -> Evaluator:
    tests = class_tests(Path(asked.data), asked.dataset, asked.prompts, asked.classes, asked.split)

    def evaluate(variables: dict[str, Any]) -> Mapping[str, float]:
        images_nd = encoder.images(variables, tests.data.pictures)
        figures: dict[str, float] = {}
        for one in tests.ensembles:
            classes_cd = classification.classifier(partial(encoder.texts, variables), one.names, one.templates)
            found = classification.find(
                tests.data,
                classification.cosines(images_nd, classes_cd),
                classification.probabilities(images_nd, classes_cd),
                names=one.names,
                benchmark=tests.benchmark,
                resamples=0,
            )
            figures |= {_named(name, one.title, len(tests.ensembles)): value for name, value in found.figures.items()}
        return figures

    return evaluate


def _probe(asked: Probe, encoder: Encoder) -> Evaluator:
    sets = probing.read_splits(Path(asked.data), asked.dataset)

    def evaluate(variables: dict[str, Any]) -> Mapping[str, float]:
        features = {name: encoder.images(variables, one.pictures) for name, one in sets.splits.items()}
        figures: dict[str, float] = {}
        for count in asked.shots:
            found, _ = probing.find(sets, features, count or None, seeds=asked.seeds, resamples=0)
            name = str(count or "all")
            figures |= {_named(figure, name, len(asked.shots)): value for figure, value in found.figures.items()}
        return figures

    return evaluate


def _named(figure: str, language: str, several: int) -> str:
    return f"{language}/{figure}" if several > 1 else figure
