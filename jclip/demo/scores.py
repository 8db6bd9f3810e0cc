"""The demo's three tests ("questions"), and its figures as tables.

T1 "known": trained names of known concepts, drawn by a new artist. Tests generalisation to a new style.
T2 "heldout": concepts that no run trained on, among all candidates. Tests generalisation to new concepts.
T3 "newnames": known concepts by names that no run trained on, spelt unlike the trained ones. Tests whether a text tower
has learned more than a list of words.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jclip.demo.baselines import pixel_distances, ranked_recalls
from jclip.demo.emoji.sources import EmojiSet, emoji_set
from jclip.demo.runs import DemoRun
from jclip.encoding import Encoder
from jclip.errors import JclipError
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.languages import LANGUAGE_NAMES
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.report.elements import Group, Row, Table
from jclip.images.preprocess import Preprocessing
from jclip.tokenizers.text import load_tokenizer
from jclip.train.configuration import Run
from jclip.train.evaluating import Evaluator

QUESTIONS = {
    "known": "T1: known concepts by a new artist",
    "heldout": "T2: new concepts, among all candidates",
    "newnames": "T3: known concepts by new names, spelt unlike the trained ones",
}
KS = (1, 5, 10)
EVALUATION = "emoji"
"""Name of the evaluation in metrics.jsonl."""


class Examination:
    """Images by the test artist and the questions about them; no run trains on them.

    Attributes:
      artist: the test artist.
      train_artists: artists of the training images, for the baseline in pixels.
    """

    def __init__(self, folder: Path, artist: str, train_artists: Sequence[str], preprocessing: Preprocessing):
        self.artist = artist
        self.train_artists = tuple(train_artists)
        self._folder, self._preprocessing = folder, preprocessing
        self._tasks: dict[tuple[str, str], tuple[RetrievalTask, dict[str, float]] | None] = {}

    @cached_property
    def emoji(self) -> EmojiSet:
        """The data set."""
        return emoji_set(self._folder)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of the concepts in the order of the gallery: the known ones first, then the held-out ones."""
        return np.concatenate([self.emoji.rows("known"), self.emoji.rows("heldout")])

    @cached_property
    def known(self) -> int:
        """Number of known concepts."""
        return len(self.emoji.rows("known"))

    @cached_property
    def pictures(self) -> np.ndarray:
        """The test artist's images in the gallery's order, uint8 (n, size, size, 3)."""
        return self.emoji.pictures(self.artist, self._preprocessing)[self.rows]

    def names(self, language: str) -> list[str]:
        """Returns the concepts' names in the gallery's order."""
        return [self.emoji.names[language][row] for row in self.rows]

    @cached_property
    def _pixel_distances(self) -> np.ndarray:
        """Distances in pixels between the gallery and the training images, all artists' known concepts in turn."""
        known = self.emoji.rows("known")
        train = [self.emoji.pictures(artist, self._preprocessing)[known] for artist in self.train_artists]
        return pixel_distances(self.pictures, np.concatenate(train))

    def baseline(self, task: RetrievalTask) -> dict[str, float]:
        """Computes image-to-text recalls of the nearest training image in pixels, on a task's own queries.

        It reads no text: it ranks concepts by their nearest training image, so concepts without one come last.
        """
        asked = np.arange(len(task.captions)) if task.queries is None else task.queries
        keys = _equal_names(list(task.captions))
        train_keys = np.tile(keys[: self.known], len(self.train_artists))
        found = ranked_recalls(self._pixel_distances[asked], train_keys, keys[asked], np.unique(keys), ks=KS)
        return {f"i2t_pixels_r{k}": found[f"i2t_r{k}"] for k in KS}

    def task(self, question: str, language: str) -> RetrievalTask | None:
        """Returns a question in a language; None if the language has no such names."""
        names = self.names(language)
        count = len(names) if question == "heldout" else self.known
        if question == "known":
            asked = [i for i in range(count) if not self.emoji.is_heldout(self.rows[i], language)]
        elif question == "heldout":
            asked = list(range(self.known, count))
        else:
            fresh = set(self.emoji.heldout_rows(language).tolist())
            asked = [i for i in range(count) if self.rows[i] in fresh]
        if not asked:
            return None
        keys = _equal_names(names[:count])
        positives = Positives.from_keys(keys, keys)
        return RetrievalTask(
            question, self.pictures[:count], names[:count], positives, np.array(asked), language=language
        )

    def evaluators(self, run: Run, languages: Sequence[str]) -> dict[str, Evaluator]:
        """Returns an evaluator for `train` that asks all questions in all languages; images are encoded once."""
        encoder = Encoder(run.model, load_tokenizer(run.tokenizer), run.preprocessing, run.stages[-1].context_length)
        tasks = [self._asked(question, language) for language, question in product(languages, QUESTIONS)]

        def evaluate(variables: dict[str, Any]) -> dict[str, float]:
            images_nd = encoder.images(variables, self.pictures)
            figures: dict[str, float] = {}
            for language in languages:
                texts_nd = encoder.texts(variables, self.names(language))
                for task, constant in (each for each in tasks if each and each[0].language == language):
                    count = len(task.captions)
                    scores = task.score(images_nd[:count], texts_nd[:count]) | constant
                    figures |= {f"{language}/{task.name}/{name}": value for name, value in scores.items()}
            return figures

        return {EVALUATION: evaluate}

    def _asked(self, question: str, language: str) -> tuple[RetrievalTask, dict[str, float]] | None:
        """Returns a question in a language, and the figures that do not depend on the model."""
        if (question, language) not in self._tasks:
            task = self.task(question, language)
            asked = None if task is None or task.queries is None else len(task.queries)
            self._tasks[question, language] = (
                None if task is None or asked is None else (task, {**self.baseline(task), "queries": asked})
            )
        return self._tasks[question, language]


def summarise(
    runs: Sequence[DemoRun], journals: Mapping[str, list[dict[str, Any]]], examination: Examination
) -> dict[str, Any]:
    """Collects all figures of a demo as JSON, as fractions: a row for each run, moment, language and question.

    The moment, "stage", is the number of finished stages.

    Raises JclipError if a journal lacks an evaluation.
    """
    rows = []
    for each in runs:
        ends = np.cumsum([0] + [stage.budget.steps for stage in each.run.stages]).tolist()
        by_step = {record["total"]: record for record in journals[each.key] if record["kind"] == "evaluation"}
        for moment, total in enumerate(ends):
            if total not in by_step:
                file = each.workdir / "metrics.jsonl"
                raise JclipError(f"{file} lacks the figures of step {total}: delete {each.workdir} and run again")
            for language, question in product(each.languages, QUESTIONS):
                prefix = f"{EVALUATION}/{language}/{question}/"
                record = by_step[total].items()
                figures = {name.removeprefix(prefix): value for name, value in record if name.startswith(prefix)}
                if figures:
                    place = {"run": each.key, "stage": moment, "language": language, "question": question}
                    rows.append({**place, "figures": figures})
    known, everything = examination.known, len(examination.rows)
    candidates = {"known": known, "heldout": everything, "newnames": known}
    return {"candidates": candidates, "rows": rows, "stages": _titles(runs)}


ALL_COLUMNS = tuple((way, k) for way in ("t2i", "i2t") for k in KS)
FEW_COLUMNS = (("t2i", 1), ("t2i", 10), ("i2t", 1), ("i2t", 10))


def tables(results: Mapping[str, Any], columns: Sequence[tuple[str, int]] = ALL_COLUMNS) -> list[Table]:
    """Returns a table for each question: for each stage and language, the figures before and after the stage."""
    return [_table(question, title, results, columns) for question, title in QUESTIONS.items()]


def _table(question: str, title: str, results: Mapping[str, Any], columns: Sequence[tuple[str, int]]) -> Table:
    found = {
        (row["run"], row["stage"], row["language"]): row["figures"]
        for row in results["rows"]
        if row["question"] == question
    }
    groups = []
    for run, stages in results["stages"].items():
        for number, name in enumerate(stages, 1):
            languages = [key[2] for key in found if key[:2] == (run, number)]
            rows = [
                Row(
                    LANGUAGE_NAMES[language],
                    _values(found[run, number, language], columns),
                    _values(found[run, number - 1, language], columns),
                )
                for language in languages
            ]
            if rows:
                all_figures = [found[run, number, language] for language in languages]
                references = [
                    Row(label, _means(all_figures, columns, kind))
                    for label, kind in (("chance", "chance_"), ("nearest in pixels", "pixels_"))
                ]
                groups.append(Group(name, rows, references))
    names = [f"{_WAYS[way]} R@{k}" for way, k in columns]
    asked = sorted({int(figures["queries"]) for figures in found.values()})
    count = f"{asked[0]}" if len(asked) == 1 else f"{asked[0]} to {asked[-1]}"
    return Table(
        f"{title} ({results['candidates'][question]} candidates)",
        names,
        groups,
        note=f"Queries in each language: {count}. Chance and the nearest training image in pixels are means over the "
        "languages of a stage.",
    )


_WAYS = {"t2i": "T→I", "i2t": "I→T"}


def _values(figures: Mapping[str, float], columns: Sequence[tuple[str, int]]) -> list[float]:
    return [figures[f"{way}_r{k}"] for way, k in columns]


def _means(all_figures: list[Mapping[str, float]], columns: Sequence[tuple[str, int]], kind: str) -> list[float | None]:
    """Returns means over languages; None for text to image of the pixel baseline, which reads no text."""
    names = [f"{way}_{kind}r{k}" for way, k in columns]
    return [float(np.mean([each[name] for each in all_figures])) if name in all_figures[0] else None for name in names]


def _titles(runs: Sequence[DemoRun]) -> dict[str, list[str]]:
    return {
        each.key: [f"{each.title}, stage {i}: {stage.name}" for i, stage in enumerate(each.run.stages, 1)]
        for each in runs
    }


def _equal_names(captions: Sequence[str]) -> np.ndarray:
    """Returns a key for each caption: concepts that share a name answer each other's queries."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(caption, number) for number, caption in enumerate(captions)])
