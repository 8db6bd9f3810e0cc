"""Evaluations of a run: the kinds that jclip has, and the evaluators that are built from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jclip.config import kind_of
from jclip.encoding import Encoder
from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import open_classification, open_probe, open_retrieval
from jclip.evaluate.tasks import classification, probe, retrieval
from jclip.evaluate.tasks.evaluation import Encodes
from jclip.images.preprocess import Picture
from jclip.ranges import AtLeastOne, Count
from jclip.tokenizers.text import load_tokenizer
from jclip.train.configuration import Run
from jclip.train.evaluating import Evaluator
from jclip.train.evaluations import EvaluationConfig, Figures


@dataclass(frozen=True)
class _Snapshot:
    """Model with the variables of one step."""

    encoder: Encoder
    variables: dict[str, Any]

    def encode_image(self, pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        return self.encoder.images(self.variables, pictures)

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        return self.encoder.texts(self.variables, sentences)


def evaluators(run: Run) -> dict[str, Evaluator]:
    """Opens and checks the data of `run.evaluations`, and returns the evaluators by name.

    Raises JclipError if data are missing or wrong. The message names the evaluation.
    """
    if not run.evaluations:
        return {}
    tokenizer, context_length = load_tokenizer(Path(run.tokenizer)), run.stages[-1].context_length
    encoder = Encoder(run.model, tokenizer, run.preprocessing, context_length)
    made: dict[str, Evaluator] = {}
    for one in run.evaluations:
        try:
            made[one.name] = _evaluator(one.open(), encoder)
        except JclipError as error:
            raise JclipError(f"evaluation {one.name!r}: {error}") from None
    return made


def _evaluator(figures_of: Callable[[Encodes], Figures], encoder: Encoder) -> Evaluator:
    def evaluate(variables: dict[str, Any]) -> dict[str, float]:
        found = list(figures_of(_Snapshot(encoder, variables)))
        return {
            f"{key}/{name}" if len(found) > 1 else name: value for key, some in found for name, value in some.items()
        }

    return evaluate


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class Retrieval(EvaluationConfig):
    """Image-text recall, as in `jclip eval retrieval`.

    Attributes:
      name: prefix of its figures: "muge" gives "muge/t2i_r1", ..., "muge/mean_recall"; with several languages
        "xtd/zh/t2i_r1".
      data: a file of pairs, or a folder.
      protocol: a published benchmark, which sets the split, the languages and the directions; "" for none.
      split: split of a folder; "" for the protocol's, or "test".
      languages: languages to evaluate; empty for all of the protocol and the folder.
    """

    command = "retrieval"
    name: str
    data: str
    protocol: str = ""
    split: str = ""
    languages: tuple[str, ...] = ()

    def open(self) -> Callable[[Encodes], Figures]:
        """See `EvaluationConfig`."""
        tests = open_retrieval(Path(self.data), self.protocol, self.split, self.languages)
        unanswered = next((task for task in tests.tasks if not task.has_answers), None)
        if unanswered is not None:
            raise JclipError(f"{unanswered.name} has no answers, so nothing can be scored: choose another split")

        def figures(model: Encodes) -> Figures:
            for task, image_nd, text_md in retrieval.encode_tasks(tests.tasks, model):
                yield task.language, task.score(image_nd, text_md)

        return figures


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class Classification(EvaluationConfig):
    """Zero-shot classification, as in `jclip eval classify`.

    Attributes:
      name: prefix of its figures: "cifar" gives "cifar/accuracy", ...; with several prompts "cifar/zh/accuracy".
      data: a folder of images by class.
      dataset: name of a known data set; "" for your own.
      prompts: names of prompt ensembles: languages, "cn_clip", "open_clip", .json files; empty for the language of
        the class names.
      classes: a file of class names, or "cn_clip" or "open_clip" for ImageNet's; "" for the file beside the data.
      split: split of the data, if it has splits.
    """

    command = "classify"
    name: str
    data: str
    dataset: str = ""
    prompts: tuple[str, ...] = ()
    classes: str = ""
    split: str = "test"

    def open(self) -> Callable[[Encodes], Figures]:
        """See `EvaluationConfig`."""
        tests = open_classification(Path(self.data), self.dataset, self.prompts, self.classes, self.split)

        def figures(model: Encodes) -> Figures:
            for one in classification.evaluate(tests, model, resamples=0):
                yield one.ensemble.title, one.result.figures

        return figures


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class Probe(EvaluationConfig):
    """A linear probe on the current features, as in `jclip eval probe`.

    Attributes:
      name: prefix of its figures: "pets" gives "pets/accuracy", ...; with several numbers of shots "pets/16/accuracy".
      data: a folder with train, test and optionally valid.
      dataset: name of a known data set; "" for your own.
      shots: images per class; 0 for all (None in `jclip.evaluate.probe`).
      seeds: number of draws that few-shot figures are averaged over.
    """

    command = "probe"
    name: str
    data: str
    dataset: str = ""
    shots: tuple[Count, ...] = (0,)
    seeds: AtLeastOne = 3

    def open(self) -> Callable[[Encodes], Figures]:
        """See `EvaluationConfig`."""
        splits = open_probe(Path(self.data), self.dataset)
        shots = [count or None for count in self.shots]

        def figures(model: Encodes) -> Figures:
            found = probe.evaluate(splits, model, shots, seeds=self.seeds, resamples=0)
            yield from ((str(count or "all"), one.result.figures) for count, one in zip(shots, found, strict=True))

        return figures
