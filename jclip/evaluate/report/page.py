"""Findings for people: tables, plots, and the pages that hold them."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path

from jclip.evaluate.findings import Finding, Findings, differences, mean_over
from jclip.evaluate.languages import name_of
from jclip.evaluate.metrics.bootstrap import Interval
from jclip.evaluate.report.chart import Chart, Curve
from jclip.evaluate.report.report import Group, Matrix, Report, Row, Section, Table, html, markdown

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
_CURVES = ("t2i_r1", "i2t_r1", "mean_recall", "accuracy")
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
_VARIANTS = {"classification": "prompts", "probe": "training pictures"}
_BINS = ("Shares of each in sixty bins.", "Densities.")  # of one model, of two
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
        if len(several) > 1 and _by_languages(several):
            others = [before[test.key] for test in several if test.key in before]
            means = [[mean_over(some, name) for name in columns] for some in (several, others)]
            rows.append(Row(f"mean of {len(several)}", means[0], means[1] if len(others) == len(several) else None))
        chance = Row("chance", [mean_over(several, _chance(name)) for name in columns])
        counts = ", ".join(_counted(name, several) for name in _COUNTS if name in several[0].counts)
        title = f"{dataset}: {counts}" if counts else dataset
        groups.append(Group(title, rows, [chance] if any(value is not None for value in chance.values) else []))
    notes = dict.fromkeys(f"{test.dataset}: {test.note}" for test in tests if test.note)
    notes |= dict.fromkeys(filter(None, (_counting(list(some)) for _, some in groupby(tests, lambda one: one.dataset))))
    title = f"{_TITLES.get(kind, kind)}: {findings.model}"
    if other:
        title = f"{_TITLES.get(kind, kind)}: A is {other.model}, B is {findings.model}"
    return Table(
        title,
        [_NAMES.get(name, name) for name in columns],
        groups,
        note=" ".join(notes),
        before=f"A, {other.model}" if other else "before the stage",
        main=columns.index(tests[0].main) if tests[0].main in columns else 0,
        stacked=other is not None,
    )


def _counted(name: str, tests: Sequence[Finding], kind: str = "") -> str:
    found = sorted({test.counts.get(f"{kind}{name}", 0) for test in tests})
    return f"{found[0]:,}{f' to {found[-1]:,}' if len(found) > 1 else ''} {name}"


def _counting(tests: Sequence[Finding]) -> str:
    """Returns a sentence on what was one picture and one caption in the tests on a data set; empty where not known."""
    ways = {test.counting for test in tests}
    if ways == {"published"}:
        return f"{tests[0].dataset}: counted as published, each picture and caption of the source by itself."
    if ways != {"joined"}:
        return ""
    some = ", ".join(_counted(name, tests, "joined_") for name in ("pictures", "captions"))
    return f"{tests[0].dataset}: equal pictures and equal captions count once; joined with an equal one: {some}."


def _row(test: Finding, columns: Sequence[str], before: Finding | None) -> Row:
    # Of two models the interval that counts is that of their difference.
    own, moved = ({}, differences(before, test)) if before else (test.intervals, {})
    return Row(
        _named(test) or "all",
        [test.figures.get(name) for name in columns],
        [before.figures.get(name) for name in columns] if before else None,
        _bounds(own, columns),
        _bounds(moved, columns),
    )


def _bounds(intervals: Mapping[str, Interval], columns: Sequence[str]) -> list[Interval | None] | None:
    found = [intervals.get(name) for name in columns]
    return found if any(found) else None


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
    """The page of one model, or of two side by side: A is the other one, B that of the findings."""
    plots = list(_plots(findings, other))
    reading = _READING_BOTH if other else _READING
    sections = [Section("Figures", reading if findings.tests else _SECRET, tables(findings, other))]
    if plots:
        sections.append(Section("Plots", items=plots))
    facts = [("tests", str(len(findings.tests)))] if findings.tests else []
    languages = {test.language for test in findings.tests if test.language}
    if languages:
        facts.append(("languages", str(len(languages))))
    settings = ", ".join(f"{name} {value}" for name, value in findings.settings.items() if value not in ("", None))
    title = f"{f'{Path(other.model).name} and ' if other else ''}{Path(findings.model).name}"
    models = f"A is {other.model}, B is {findings.model}." if other else f"{findings.model}."
    return Report(
        title=f"jclip eval: {title}",
        intro=models + (f"\n\n{settings}" if settings else ""),
        sections=[*sections, *more],
        facts=facts,
        footer=f"jclip {version('jclip')}, jax {version('jax')}. Made by `jclip eval`.",
    )


_READING = """Percentages. Under a figure stands its 95 % bootstrap interval over the queries; it says nothing about \
another seed of the training."""
_SECRET = "None: this test's answers are secret. The predictions lie beside this page."
_READING_BOTH = """Percentages, A → B. Under them stands the 95 % bootstrap interval of B less A where both were asked \
the same queries. A difference whose interval holds 0 may be chance; another seed of the training may \
differ by more."""


def write_pages(findings: Findings, folder: Path, more: Sequence[Section] = (), other: Findings | None = None) -> None:
    """Writes report.html and report.md into a folder that is there."""
    made = report(findings, more, other)
    (folder / "report.html").write_text(html(made), encoding="utf-8")
    (folder / "report.md").write_text(markdown(made), encoding="utf-8")


def _plots(findings: Findings, other: Findings | None) -> Iterator[Chart | Matrix]:
    """Of two models only what shows both, on the same axes."""
    before = {test.key: test for test in other.tests} if other else {}
    for dataset, some in groupby(findings.tests, key=lambda test: test.dataset):
        tests = list(some)
        pairs = [(before[test.key], test) for test in tests] if other else [(test,) for test in tests]
        if len(tests) > 2:
            yield _by_test(dataset, pairs)
        for pair in pairs[:_MOST_CURVES]:
            if all(test.scores for test in pair):
                yield Chart(
                    f"{_titled(pair[-1])}: {_SCORES[pair[-1].kind]}",
                    _curves(pair),
                    _BINS[len(pair) - 1],
                    x_label="score",
                )
        for test in tests if not other else ():
            if test.confusion and len(test.classes) <= _MOST_CLASSES:
                yield Matrix(f"{_titled(test)}: what was taken for what", test.classes, test.confusion, _MATRIX)


_MATRIX = "A row for each true class; the darker, the larger its share of the row."


def _curves(pair: Sequence[Finding]) -> list[Curve]:
    """How scores are distributed; of two models as densities, for shares of bins of two widths do not compare."""
    curves = []
    for letter, test in zip("AB", pair, strict=False):
        assert test.scores is not None
        steps = list(pairwise(test.scores.edges))
        middles = [(low + high) / 2 for low, high in steps]
        for name, shares in test.scores.shares.items():
            if len(pair) > 1:
                name = f"{letter}, {name}"
                shares = tuple(share / (high - low) for share, (low, high) in zip(shares, steps, strict=True))
            curves.append(Curve(name, middles, shares))
    return curves


def _by_test(dataset: str, pairs: Sequence[Sequence[Finding]]) -> Chart:
    """A curve a figure over the tests, whose names are the ticks of the horizontal axis; languages the best first.

    Of two models the headline figure alone, a curve each.
    """
    some = pairs[0][-1]
    languages = _by_languages([pair[-1] for pair in pairs])
    if languages:
        pairs = sorted(pairs, key=lambda pair: -float(pair[-1].figures[pair[-1].main]))
    names = [(pair[-1].language if languages else pair[-1].variant or pair[-1].language) or "?" for pair in pairs]
    shown = [name for name in _ORDER if name in _CURVES and name in some.figures]
    named = [(name, 0, _NAMES[name]) for name in shown]
    if len(pairs[0]) > 1:
        named = [(some.main, i, f"{letter}, {_NAMES.get(some.main, some.main)}") for i, letter in enumerate("AB")]
    places = range(len(pairs))
    axis = "language" if languages else _VARIANTS.get(some.kind, "test")
    return Chart(
        f"{dataset} by {axis}",
        [Curve(title, places, [float(pair[i].figures[name]) for pair in pairs]) for name, i, title in named],
        percent=True,
        x_label="language, best first" if languages else axis,
        x_names=names,
    )


def _by_languages(tests: Sequence[Finding]) -> bool:
    """Whether tests of one data set differ in their languages, so that their mean is one over languages."""
    languages = {test.language for test in tests}
    return len(languages) == len(tests) and "" not in languages
