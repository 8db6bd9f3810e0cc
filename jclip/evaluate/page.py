"""Findings for people: tables, plots, and the pages that hold them."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from jclip.evaluate.chart import Chart, Curve
from jclip.evaluate.findings import Finding, Findings, mean_over
from jclip.evaluate.languages import name_of
from jclip.evaluate.report import Group, Matrix, Report, Row, Section, Table, html, markdown

_NAMES = {
    "mean_recall": "mean recall",
    "accuracy": "top 1",
    "top5": "top 5",
    "mean_per_class": "mean per class",
    "map11": "11-point mAP",
    "roc_auc": "ROC AUC",
    **{f"{way}_r{k}": f"{arrow} R@{k}" for way, arrow in (("t2i", "T→I"), ("i2t", "I→T")) for k in (1, 5, 10)},
}
"""Figures of tables, in this order, as papers call them."""
_ORDER = [
    *[f"{way}_r{k}" for way in ("t2i", "i2t") for k in (1, 5, 10)],
    "mean_recall", "accuracy", "top5", "mean_per_class", "map11", "roc_auc",
]  # fmt: skip
_TITLES = {
    "retrieval": "Retrieval",
    "classification": "Zero-shot classification",
    "probe": "Linear probe on frozen features",
}
_SCORES = {
    "retrieval": "cosines of pairs",
    "classification": "cosines of the best class",
    "probe": "logits of the best class",
}
_BINS = "Shares of each in sixty bins."
_COUNTS = ("pictures", "captions", "classes")
_MOST_CURVES = 8  # of one data set; the others are in results.json
_MOST_CLASSES = 60  # beyond that, a confusion matrix is grey


def tables(findings: Findings, other: Findings | None = None) -> list[Table]:
    """One table a kind, its groups the data sets, its rows the languages.

    Args:
      findings: what is shown.
      other: another model's, shown before them where it did the same test.
    """
    before = {test.key: test for test in other.tests} if other else {}
    return [
        _table(kind, list(tests), findings, before, other)
        for kind, tests in groupby(sorted(findings.tests, key=lambda one: one.kind), key=lambda one: one.kind)
    ]


def _table(
    kind: str,
    tests: list[Finding],
    findings: Findings,
    before: dict[tuple[str, str, str, str], Finding],
    other: Findings | None,
) -> Table:
    columns = [name for name in _ORDER if any(name in test.figures for test in tests)]
    groups = []
    for dataset, some in groupby(tests, key=lambda test: test.dataset):
        several = list(some)
        rows = [_row(test, columns, before.get(test.key)) for test in several]
        if len(several) > 1:
            others = [before[test.key] for test in several if test.key in before]
            means = [[mean_over(some, name) for name in columns] for some in (several, others)]
            rows.append(Row(f"mean of {len(several)}", means[0], means[1] if len(others) == len(several) else None))
        chance = Row("chance", [mean_over(several, _chance(name)) for name in columns])
        counts = ", ".join(f"{several[0].counts[name]:,} {name}" for name in _COUNTS if name in several[0].counts)
        title = f"{dataset}: {counts}" if counts else dataset
        groups.append(Group(title, rows, [chance] if any(value is not None for value in chance.values) else []))
    notes = dict.fromkeys(f"{test.dataset}: {test.note}" for test in tests if test.note)
    title = f"{_TITLES.get(kind, kind)}: {findings.model}"
    if other:
        title += f", after {other.model}"
    named = [_NAMES.get(name, name) for name in columns]
    return Table(title, named, groups, note=" ".join(notes), before=other.model if other else "before the stage")


def _row(test: Finding, columns: Sequence[str], before: Finding | None) -> Row:
    between = [test.intervals.get(name) for name in columns]
    return Row(
        _named(test) or test.dataset,
        [test.figures.get(name) for name in columns],
        [before.figures.get(name) for name in columns] if before else None,
        between if any(between) else None,
    )


def _named(test: Finding) -> str:
    """What tells a test from the others on its data set."""
    return ", ".join(part for part in (test.language and name_of(test.language), test.variant) if part)


def _titled(test: Finding) -> str:
    return ", ".join(part for part in (test.dataset, _named(test)) if part)


def _chance(name: str) -> str:
    """The name of what chance gives for a figure: "t2i_chance_r1" for "t2i_r1"."""
    way, _, cut = name.partition("_")
    return f"{way}_chance_{cut}" if way in ("t2i", "i2t") else f"chance_{name}"


def report(findings: Findings, more: Sequence[Section] = (), other: Findings | None = None) -> Report:
    """The page of one model, or of two side by side."""
    plots = list(_plots(findings))
    sections = [Section("Figures", _READING, tables(findings, other))]
    if plots:
        sections.append(Section("Plots", items=plots))
    facts = [("tests", str(len(findings.tests)))]
    languages = {test.language for test in findings.tests if test.language}
    if languages:
        facts.append(("languages", str(len(languages))))
    settings = ", ".join(f"{name} {value}" for name, value in findings.settings.items() if value not in ("", None))
    title = f"{Path(findings.model).name}" + (f" beside {Path(other.model).name}" if other else "")
    return Report(
        title=f"jclip eval: {title}",
        intro=f"{findings.model}{f', beside {other.model}' if other else ''}."
        + (f"\n\n{settings}" if settings else ""),
        sections=[*sections, *more],
        facts=facts,
        footer=f"jclip {version('jclip')}, jax {version('jax')}. Made by `jclip eval`.",
    )


_READING = """Percentages. Under a figure stands its 95 % bootstrap interval over the queries; it says nothing about \
another seed of the training."""


def _plots(findings: Findings) -> Iterator[Chart | Matrix]:
    for dataset, some in groupby(findings.tests, key=lambda test: test.dataset):
        tests = list(some)
        if len(tests) > 2:
            yield _by_language(dataset, tests)
        for test in tests[:_MOST_CURVES]:
            if test.scores:
                middles = [(a + b) / 2 for a, b in zip(test.scores.edges, test.scores.edges[1:], strict=False)]
                curves = [Curve(name, middles, shares) for name, shares in test.scores.shares.items()]
                yield Chart(f"{_titled(test)}: {_SCORES[test.kind]}", curves, _BINS, x_label="score")
        for test in tests:
            if test.confusion and len(test.classes) <= _MOST_CLASSES:
                yield Matrix(f"{_titled(test)}: what was taken for what", test.classes, test.confusion, _MATRIX)


_MATRIX = "A row for each true class; the darker, the larger its share of the row."


def _by_language(dataset: str, tests: Sequence[Finding]) -> Chart:
    """A curve a figure over the languages, best first: the languages are the ticks of the horizontal axis."""
    ordered = sorted(tests, key=lambda test: -float(test.figures[test.main]))
    names = [test.language or "?" for test in ordered]
    shown = [name for name in ("t2i_r1", "i2t_r1", "mean_recall", "accuracy") if name in ordered[0].figures]
    places = list(range(len(ordered)))
    curves = [Curve(_NAMES[name], places, [float(test.figures[name]) for test in ordered]) for name in shown]
    return Chart(f"{dataset} by language", curves, percent=True, x_label="language, best first", x_names=names)


def write_pages(findings: Findings, folder: Path, more: Sequence[Section] = (), other: Findings | None = None) -> None:
    """Writes report.html and report.md into a folder that is there."""
    made = report(findings, more, other)
    (folder / "report.html").write_text(html(made), encoding="utf-8")
    (folder / "report.md").write_text(markdown(made), encoding="utf-8")
