"""The outcome of a fine-tuning: the better of starting and trained model, and a page that compares them."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import open_retrieval
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.report import from_results
from jclip.evaluate.report.elements import Chart, Curve, Gallery, Report, Section
from jclip.evaluate.report.galleries import retrieved
from jclip.evaluate.report.render import write
from jclip.evaluate.results import Result, Results, read_results, write_results
from jclip.evaluate.tasks import retrieval
from jclip.finetune.choices import Choice
from jclip.finetune.facts import Start
from jclip.finetune.writing import VALID
from jclip.inference import Model
from jclip.io.files import link_or_copy, whole_file, whole_folder
from jclip.loading import load

BEST, BEFORE, TRAINED, PAGE = "best", "start.json", "trained.json", "report.html"
"""Names in the output folder: the bundle, the figures of the starting and of the trained model, the page."""


@dataclass(frozen=True)
class FinetuneOutcome:
    """Figures of the starting and of the trained model.

    Attributes:
      before, trained: figures on the same tests, the validation split first.
      main: index of the test that compares them: the language with the most captions.
    """

    before: Results
    trained: Results
    main: int = 0

    @property
    def improved(self) -> bool:
        """True if the trained model is strictly better on the validation split."""
        return self.figure("mean_recall")[1] > self.figure("mean_recall")[0]

    def figure(self, name: str) -> tuple[float, float]:
        """Returns a figure of the main test for the starting and for the trained model."""
        return self.before.tests[self.main].figures[name], self.trained.tests[self.main].figures[name]


def validation_tasks(data: Path) -> tuple[tuple[RetrievalTask, ...], int]:
    """Returns the tests of the validation split, one per language, and the index of the one with the most captions.

    Raises JclipError if the split is missing or empty.
    """
    tasks = open_retrieval(data, split=VALID).tasks
    return tasks, int(np.argmax([len(task.captions) for task in tasks]))


def headline(tasks: Sequence[RetrievalTask], main: int) -> str:
    """Returns the name of the figure that selects the best checkpoint of a run."""
    return f"{VALID}/{tasks[main].language}/mean_recall" if len(tasks) > 1 else f"{VALID}/mean_recall"


def measure(model: Model, task: RetrievalTask) -> Start:
    """Computes the mean recall of a model on a test, and that of chance."""
    figures = task.score(model.encode_image(task.pictures), model.encode_text(task.captions))
    by_chance = [value for name, value in figures.items() if "_chance_r" in name]
    return Start(figures["mean_recall"], float(np.mean(by_chance)))


def settle(
    start: Path, trained: Path, data: Path, splits: Sequence[str], out: Path
) -> tuple[FinetuneOutcome, list[Section]]:
    """Copies the better of the bundles `start` and `trained` to `best` in `out`, and writes the figures of both there.

    Scores the given splits of `data`; the first, the validation split, decides. Returns the outcome, and sections of
    the page with retrieved images. Raises JclipError if a bundle cannot be read, or the disk is full.
    """
    _, main = validation_tasks(data)
    tests = [task for split in splits for task in open_retrieval(data, split=split).tasks]
    tests = [task for task in tests if task.has_answers]
    sections: list[list[Gallery]] = []
    results = []
    for name, folder in (("before", start), ("after", trained)):
        model, found = load(folder), []
        shown: list[Gallery] = []
        for encoded in retrieval.encode_tasks(tests, model):
            found.append(retrieval.score(encoded))
            if not shown:
                shown.append(replace(retrieved(*encoded), title=name))
        results.append(Results(str(folder), tuple(found)))
        sections.append(shown)
    outcome = FinetuneOutcome(results[0], results[1], main)
    better = trained if outcome.improved else start
    with whole_folder(out / BEST) as partial:
        shutil.copytree(
            better, partial, dirs_exist_ok=True, copy_function=link_or_copy if outcome.improved else shutil.copy2
        )
    for file, some in ((BEFORE, outcome.before), (TRAINED, outcome.trained)):
        with whole_file(out / file, replace=True) as partial:
            write_results(some, partial)
    return outcome, [Section("Retrieved images", _SHOWN, [one for some in sections for one in some])]


_SHOWN = """Results of both models for the same random captions of the validation split, best first; a green frame \
marks a correct image."""


def read_outcome(out: Path, data: Path) -> FinetuneOutcome:
    """Reads what `settle` wrote."""
    return FinetuneOutcome(read_results(out / BEFORE), read_results(out / TRAINED), validation_tasks(data)[1])


def write_report(
    out: Path,
    outcome: FinetuneOutcome,
    journal: Sequence[Mapping[str, Any]],
    table: Sequence[Choice],
    sections: Sequence[Section],
) -> Path:
    """Writes the page (figures, learning curves, retrieved images, choices) and returns its file."""
    before, after = outcome.figure("t2i_r1")
    test = outcome.before.tests[outcome.main]
    facts = [
        ("R@1, text to image, before", f"{before:.1%}"),
        ("after" if outcome.improved else "after, not kept", f"{after:.1%}"),
        ("candidates", f"{test.counts['pictures']:,}"),
        ("kept", "the trained model" if outcome.improved else "the starting model"),
    ]
    choices = "\n\n".join(f"{one.name}: {one.value}. {one.why[:1].upper()}{one.why[1:]}." for one in table)
    write(
        Report(
            title="jclip finetune",
            intro=_INTRO + ("" if outcome.improved else f"\n\n{NOT_BETTER}"),
            sections=[
                Section("Figures", _READING, from_results.tables(outcome.trained, outcome.before)),
                Section("Learning curves", items=list(_charts(journal, test))),
                *sections,
                Section("Settings and reasons", choices),
            ],
            facts=facts,
            footer=f"jclip {version('jclip')}, jax {version('jax')}. Made by `jclip finetune`.",
        ),
        out / PAGE,
    )
    return out / PAGE


_INTRO = """A is the starting model, B the best checkpoint of the run."""
_READING = """Percentages, A → B, with the 95 % bootstrap interval of B − A over the queries; if it contains 0, the \
difference may be chance. The best checkpoint was chosen on the split "valid", so its figures there are slightly too \
high. To quote a figure, use a split "test" that no choice has used."""
NOT_BETTER = """No checkpoint of the run was better than the starting model, which was kept. More images help most; \
then captions that distinguish the images, and a lower learning rate in finetune.py."""


def _charts(journal: Sequence[Mapping[str, Any]], test: Result) -> Iterator[Chart]:
    prefix = f"{VALID}/{test.language}/"
    if not any(f"{prefix}mean_recall" in record for record in journal):
        prefix = f"{VALID}/"
    evaluated = [r for r in journal if r["kind"] == "evaluation" and f"{prefix}mean_recall" in r]
    figures = (("mean_recall", "mean recall"), ("t2i_r1", "R@1, text to image"), ("i2t_r1", "R@1, image to text"))
    yield Chart(
        "Recall on the validation split",
        [
            Curve(title, [r["total"] for r in evaluated], [r[prefix + name] for r in evaluated])
            for name, title in figures
        ],
        levels=[("chance of R@1", evaluated[0][f"{prefix}t2i_chance_r1"])] if evaluated else [],
        percent=True,
    )
    stages = dict.fromkeys(r["stage"] for r in journal if r["kind"] == "train")
    curves = []
    for stage in stages:
        records = [r for r in journal if (r["kind"], r["stage"]) == ("train", stage)]
        curves.append(Curve(stage, [r["total"] for r in records], [r["loss"] for r in records]))
    yield Chart("Loss on the training split", curves)


def trained_bundle(workdir: Path, bundles: Sequence[Path]) -> Path:
    """Returns the bundle of a run's best checkpoint, or that of its last stage if there is none."""
    best = workdir / BEST
    if best.is_dir():
        return best
    if not bundles:
        raise JclipError(f"{workdir} has no bundle: remove it, and start again")
    return bundles[-1]
