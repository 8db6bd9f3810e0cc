"""Makes reports of an evaluation's results: tables, charts, and the pages with both."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path

from jclip.evaluate.languages import name_of
from jclip.evaluate.metrics.bootstrap import Interval
from jclip.evaluate.report.elements import Chart, Curve, Group, Matrix, Report, Row, Section, Table
from jclip.evaluate.report.render import html, markdown
from jclip.evaluate.results import Result, Results, differences, mean_over

_NAMES = {
    "mean_recall": "mean recall",
    "accuracy": "top 1",
    "top5": "top 5",
    "mean_per_class": "mean per class",
    "map11": "11-point mAP",
    "roc_auc": "ROC AUC",
    **{f"{way}_r{k}": f"{arrow} R@{k}" for way, arrow in (("t2i", "T→I"), ("i2t", "I→T")) for k in (1, 5, 10)},
}
"""Names of the figures in tables."""
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
_VARIANTS = {"classification": "prompts", "probe": "training images"}
_BINS = ("Share of each curve's scores in each of 60 bins.", "Densities.")  # for one model, for two
_COUNTS = {"pictures": "images", "captions": "captions", "classes": "classes"}
"""Words for counts in a heading, by their name in `Result.counts`."""
_MOST_CURVES = 8  # charts of score distributions of one data set; the others are in results.json
_MOST_CLASSES = 60  # larger confusion matrices are not readable


def tables(results: Results, other: Results | None = None) -> list[Table]:
    """Returns one table for each kind of test, with data sets as groups and languages as rows.

    Args:
      results: results of the model.
      other: results of another model, shown as "before" if it ran the same test.
    """
    before = {test.key: test for test in other.tests} if other else {}
    return [
        _table(kind, list(tests), results, before, other)
        for kind, tests in groupby(sorted(results.tests, key=lambda one: one.kind), key=lambda one: one.kind)
    ]


def _table(
    kind: str,
    tests: list[Result],
    results: Results,
    before: dict[tuple[str, str, str, str], Result],
    other: Results | None,
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
    title = f"{_TITLES.get(kind, kind)}: {results.model}"
    if other:
        title = f"{_TITLES.get(kind, kind)}: A is {other.model}, B is {results.model}"
    return Table(
        title,
        [_NAMES.get(name, name) for name in columns],
        groups,
        note=" ".join(notes),
        before=f"A, {other.model}" if other else "before the stage",
        main=columns.index(tests[0].main) if tests[0].main in columns else 0,
        stacked=other is not None,
    )


def _counted(name: str, tests: Sequence[Result], kind: str = "") -> str:
    found = sorted({test.counts.get(f"{kind}{name}", 0) for test in tests})
    return f"{found[0]:,}{f' to {found[-1]:,}' if len(found) > 1 else ''} {_COUNTS[name]}"


def _counting(tests: Sequence[Result]) -> str:
    """Returns a sentence on the deduplication of a data set; empty if unknown."""
    ways = {test.counting for test in tests}
    if ways == {"published"}:
        return f"{tests[0].dataset}: counted as published, equal images and equal captions separately."
    if ways != {"joined"}:
        return ""
    some = ", ".join(_counted(name, tests, "joined_") for name in ("pictures", "captions"))
    return f"{tests[0].dataset}: equal images and equal captions count once; duplicates: {some}."


def _row(test: Result, columns: Sequence[str], before: Result | None) -> Row:
    # With two models, only the interval of their difference is shown.
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


def _named(test: Result) -> str:
    """Returns a test's language and variant, which distinguish it from others on its data set."""
    return ", ".join(part for part in (test.language and name_of(test.language), test.variant) if part)


def _titled(test: Result) -> str:
    return ", ".join(part for part in (test.dataset, _named(test)) if part)


def _chance(name: str) -> str:
    """Returns the name of a figure's chance: "t2i_chance_r1" for "t2i_r1"."""
    way, _, cut = name.partition("_")
    return f"{way}_chance_{cut}" if way in ("t2i", "i2t") else f"chance_{name}"


def report(results: Results, more: Sequence[Section] = (), other: Results | None = None) -> Report:
    """Returns the page of one model, or of two side by side: A is `other`, B is `results`."""
    plots = list(_plots(results, other))
    reading = _READING_BOTH if other else _READING
    sections = [Section("Figures", reading if results.tests else _SECRET, tables(results, other))]
    if plots:
        sections.append(Section("Plots", items=plots))
    facts = [("tests", str(len(results.tests)))] if results.tests else []
    languages = {test.language for test in results.tests if test.language}
    if languages:
        facts.append(("languages", str(len(languages))))
    settings = ", ".join(f"{name} {value}" for name, value in results.settings.items() if value not in ("", None))
    title = f"{f'{Path(other.model).name} and ' if other else ''}{Path(results.model).name}"
    models = f"A is {other.model}, B is {results.model}." if other else f"{results.model}."
    return Report(
        title=f"jclip eval: {title}",
        intro=models + (f"\n\n{settings}" if settings else ""),
        sections=[*sections, *more],
        facts=facts,
        footer=f"jclip {version('jclip')}, jax {version('jax')}. Made by `jclip eval`.",
    )


_READING = """Percentages. Under each figure is its 95 % bootstrap interval over the queries. It does not cover \
other training seeds."""
_SECRET = "No figures: this test's answers are secret. The predictions are in files beside this page."
_READING_BOTH = """Percentages, A → B. Under them is the 95 % bootstrap interval of B − A, if both ran the same \
queries. A difference whose interval contains 0 may be chance; another training seed may differ by more."""


def write_pages(results: Results, folder: Path, more: Sequence[Section] = (), other: Results | None = None) -> None:
    """Writes report.html and report.md into an existing folder."""
    made = report(results, more, other)
    (folder / "report.html").write_text(html(made), encoding="utf-8")
    (folder / "report.md").write_text(markdown(made), encoding="utf-8")


def _plots(results: Results, other: Results | None) -> Iterator[Chart | Matrix]:
    """Yields charts and confusion matrices; for two models only the charts that show both."""
    before = {test.key: test for test in other.tests} if other else {}
    for dataset, some in groupby(results.tests, key=lambda test: test.dataset):
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
                yield Matrix(f"{_titled(test)}: confusion matrix", test.classes, test.confusion, _MATRIX)


_MATRIX = "Rows are true classes; a darker cell is a larger share of its row."


def _curves(pair: Sequence[Result]) -> list[Curve]:
    """Returns the distributions of scores; for two models as densities, because the widths of their bins differ."""
    curves = []
    for letter, test in zip("AB", pair, strict=False):
        if test.scores is None:
            continue
        steps = list(pairwise(test.scores.edges))
        middles = [(low + high) / 2 for low, high in steps]
        for name, shares in test.scores.shares.items():
            if len(pair) > 1:
                name = f"{letter}, {name}"
                shares = tuple(share / (high - low) for share, (low, high) in zip(shares, steps, strict=True))
            curves.append(Curve(name, middles, shares))
    return curves


def _by_test(dataset: str, pairs: Sequence[Sequence[Result]]) -> Chart:
    """Returns a chart with one curve for each figure over the tests; languages are sorted by the headline figure.

    For two models it shows the headline figure of each.
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


def _by_languages(tests: Sequence[Result]) -> bool:
    """Returns whether tests of one data set are in different languages, so that a mean over languages makes sense."""
    languages = {test.language for test in tests}
    return len(languages) == len(tests) and "" not in languages
