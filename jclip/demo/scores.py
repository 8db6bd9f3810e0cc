"""The demo's questions, and its figures as tables.

T1 "known": concepts whose names were trained on, drawn by an artist never seen: does the model see past a style?
T2 "heldout": concepts that no training saw, among all candidates: does it know new things?
T3 "newnames": known concepts by names held out of all training text, and spelt unlike the names that were shown: more
than a list of words?
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jclip.configs.demo import common
from jclip.data.emoji.protocol import LANGUAGE_NAMES
from jclip.data.emoji.sources import EmojiSet
from jclip.demo.baselines import pixel_recalls
from jclip.demo.runs import DemoRun
from jclip.errors import JclipError
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.report.elements import Group, Row, Table
from jclip.inference import Encoder
from jclip.tokenizers.text import load_tokenizer
from jclip.train.configuration import Run
from jclip.train.evaluating import Evaluator

QUESTIONS = {
    "known": "T1: known concepts by an artist never seen",
    "heldout": "T2: concepts never seen, among all candidates",
    "newnames": "T3: known concepts by names held out of training, spelt like none that was shown",
}
KS = (1, 5, 10)


class Examination:
    """The test artist's pictures and the questions about them; nothing here is ever trained on.

    Attributes:
      artist: whose pictures are asked about.
    """

    def __init__(self, place: common.Place, artist: str):
        self._baselines: dict[tuple[str, str], dict[str, float]] = {}
        self.artist, self._train_artists, self._folder = artist, place.artists, Path(place.data) / "data"

    @cached_property
    def emoji(self) -> EmojiSet:
        """The data set."""
        return EmojiSet(self._folder)

    @cached_property
    def rows(self) -> np.ndarray:
        """Concepts in the order of the gallery: the known ones first, then the held-out ones."""
        return np.concatenate([self.emoji.rows("known"), self.emoji.rows("heldout")])

    @cached_property
    def known(self) -> int:
        """How many concepts are known."""
        return len(self.emoji.rows("known"))

    @cached_property
    def pictures(self) -> np.ndarray:
        """The test artist's pictures in the gallery's order, uint8 (n, size, size, 3)."""
        return self.emoji.pictures(self.artist, common.PREPROCESSING)[self.rows]

    def names(self, language: str) -> list[str]:
        """The concepts' names in the gallery's order."""
        return [self.emoji.names[language][row] for row in self.rows]

    @cached_property
    def _trained(self) -> tuple[np.ndarray, np.ndarray]:
        """The training pictures, and their concepts' places in the gallery."""
        known = self.emoji.rows("known")
        pictures = [self.emoji.pictures(artist, common.PREPROCESSING)[known] for artist in self._train_artists]
        return np.concatenate(pictures), np.tile(np.arange(self.known), len(pictures))

    def baseline(self, question: str, language: str) -> dict[str, float]:
        """Image-to-text recalls, on a question's own pictures, of the nearest training picture in pixels.

        It has no text model to ask: it answers with the concept of that picture, so a concept without one comes last.
        """
        if (question, language) not in self._baselines:
            task, (pictures, concepts) = self.task(question, language), self._trained
            assert task is not None
            assert task.queries is not None
            keys, asked = _equal_names(list(task.captions)), task.queries
            found = pixel_recalls(pictures, keys[concepts], self.pictures[asked], keys[asked], np.unique(keys), ks=KS)
            self._baselines[question, language] = {f"i2t_pixels_r{k}": found[f"i2t_r{k}"] for k in KS}
        return self._baselines[question, language]

    def task(self, question: str, language: str) -> RetrievalTask | None:
        """One question in one language; None where the language has no such names."""
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
        belong = Positives.from_keys(keys, keys)
        return RetrievalTask(question, self.pictures[:count], names[:count], belong, np.array(asked), language=language)

    def evaluators(self, run: Run, languages: Sequence[str]) -> dict[str, Evaluator]:
        """What the training loop calls: one evaluator a language, the pictures encoded once for all its questions."""
        encoder = Encoder(run.model, load_tokenizer(run.tokenizer), run.preprocessing, run.stages[-1].context_length)
        return {language: self._evaluator(encoder, language) for language in languages}

    def _evaluator(self, encoder: Encoder, language: str) -> Evaluator:
        tasks = [task for question in QUESTIONS if (task := self.task(question, language))]
        everything = self.task("heldout", language)
        assert everything is not None

        def evaluate(variables: dict[str, Any]) -> dict[str, float]:
            images_nd = encoder.images(variables, everything.pictures)
            texts_nd = encoder.texts(variables, everything.captions)
            figures: dict[str, float] = {}
            for task in tasks:
                count = len(task.captions)
                scores = task.score(images_nd[:count], texts_nd[:count]) | self.baseline(task.name, language)
                assert task.queries is not None
                scores["queries"] = len(task.queries)
                figures |= {f"{task.name}/{name}": value for name, value in scores.items()}
            return figures

        return evaluate


def summarise(
    runs: Sequence[DemoRun], journals: Mapping[str, list[dict[str, Any]]], examination: Examination
) -> dict[str, Any]:
    """All figures of a demo as JSON: a row for each run, moment, language and question, as fractions."""
    rows = []
    for each in runs:
        ends = np.cumsum([0] + [stage.budget.steps for stage in each.run.stages]).tolist()
        by_step = {record["total"]: record for record in journals[each.key] if record["kind"] == "evaluation"}
        for moment, total in enumerate(ends):
            if total not in by_step:
                file = each.workdir / "metrics.jsonl"
                raise JclipError(f"{file} lacks the figures of step {total}: delete {each.workdir} and run again")
            for language, question in product(each.languages, QUESTIONS):
                prefix = f"{language}/{question}/"
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
    """The figures as tables, one a question: each stage with its languages, before and after."""
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
        note=f"Asked in each language: {count}. Chance and the nearest training picture in pixels are means over a "
        "group's languages.",
    )


_WAYS = {"t2i": "T→I", "i2t": "I→T"}


def _values(figures: Mapping[str, float], columns: Sequence[tuple[str, int]]) -> list[float]:
    return [figures[f"{way}_r{k}"] for way, k in columns]


def _means(all_figures: list[Mapping[str, float]], columns: Sequence[tuple[str, int]], kind: str) -> list[float | None]:
    """Means over languages; None where there is no such figure: pixels are never asked by text."""
    names = [f"{way}_{kind}r{k}" for way, k in columns]
    return [float(np.mean([each[name] for each in all_figures])) if name in all_figures[0] else None for name in names]


def _titles(runs: Sequence[DemoRun]) -> dict[str, list[str]]:
    return {
        each.key: [f"{each.title}, stage {i}: {stage.name}" for i, stage in enumerate(each.run.stages, 1)]
        for each in runs
    }


def _equal_names(captions: Sequence[str]) -> np.ndarray:
    """Keys under which two concepts that share a name in a language count as each other's right answer."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(caption, number) for number, caption in enumerate(captions)])
