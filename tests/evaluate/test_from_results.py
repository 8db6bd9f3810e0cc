"""Results round-trip through JSON, and the report shows them."""

import json
import re
from dataclasses import replace

import pytest

from jclip.errors import JclipError
from jclip.evaluate.report.elements import Chart, Matrix, Table
from jclip.evaluate.report.from_results import report, tables, write_pages
from jclip.evaluate.results import Histogram, Result, Results, as_dict, read_results, write_results


def retrieval(language, r1, dataset="XTD", main="mean_recall"):
    figures = {"t2i_r1": r1, "mean_recall": r1, "t2i_chance_r1": 0.01}
    return Result(
        "retrieval",
        dataset,
        language,
        figures,
        {"t2i_r1": (r1 - 0.05, r1 + 0.05)},
        main,
        {"pictures": 1000, "captions": 1000, "t2i_queries": 1000},
        note="Papers differ.",
        scores=Histogram((0.0, 0.5, 1.0), {"belong together": (0.2, 0.8), "at random": (0.9, 0.1)}),
    )


CLASSES = Result(
    "classification", "Toy", "en", {"accuracy": 0.5}, main="accuracy", confusion=((3, 1), (2, 2)), classes=("a|b", "c")
)
FINDINGS = Results(
    "bundles/m9", (retrieval("zh", 0.6), retrieval("en", 0.7), retrieval("ja", 0.4), CLASSES), {"data": "d"}
)


def test_results_round_trip_through_json(tmp_path):
    write_results(FINDINGS, tmp_path / "results.json")
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == FINDINGS
    shown = as_dict(FINDINGS)["tests"][0]
    assert (shown["t2i_r1"], shown["pictures"], shown["language"]) == (0.6, 1000, "zh")
    data = json.loads((tmp_path / "results.json").read_text())
    for change, message in (
        ({"format": 9}, "is not a results.json of jclip eval"),
        ({"tests": [{"kind": 3}]}, r"results\.json\.tests\.0\.kind is 3, but must be of type str"),
    ):
        (tmp_path / "results.json").write_text(json.dumps({**data, **change}))
        with pytest.raises(JclipError, match=message):
            read_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(JclipError, match=r"results\.json cannot be read"):
        read_results(tmp_path)
    with pytest.raises(JclipError, match="results.json does not exist: name a folder"):
        read_results(tmp_path / "nowhere" / "results.json")


def test_tables_by_kind_data_set_and_language():
    classes, found = tables(FINDINGS)
    assert (list(classes.columns), list(found.columns)) == (["top 1"], ["T→I R@1", "mean recall"])
    (group,) = found.groups
    assert group.name == "XTD: 1,000 images, 1,000 captions"
    assert [row.label for row in group.rows] == ["中文 (zh)", "English (en)", "日本語 (ja)", "mean of 3"]
    assert group.rows[0].intervals == [(pytest.approx(0.55), pytest.approx(0.65)), None]
    assert group.rows[3].values == [pytest.approx(1.7 / 3)] * 2
    assert group.references[0].values == [0.01, None]
    assert found.note == "XTD: Papers differ."


def test_languages_of_different_size():
    more = replace(FINDINGS.tests[1], counts={"pictures": 1000, "captions": 2000})
    (table,) = tables(Results("b", (FINDINGS.tests[0], more)))
    assert table.groups[0].name == "XTD: 1,000 images, 1,000 to 2,000 captions"


def test_two_results_are_compared_side_by_side():
    other = Results("bundles/old", (retrieval("zh", 0.5), retrieval("en", 0.5)))
    _, found = tables(FINDINGS, other)
    assert [row.before for row in found.groups[0].rows] == [[0.5, 0.5], [0.5, 0.5], None, None]
    assert (found.before, found.stacked) == ("A, bundles/old", True)
    both = (
        Results("bundles/m9", FINDINGS.tests[:3]),
        Results("bundles/old", (*map(worse, FINDINGS.tests[:3]), CLASSES)),
    )
    page = report(both[0], other=both[1])
    assert (page.title, page.intro) == ("jclip eval: old and m9", "A is bundles/old, B is bundles/m9.")
    by_language, *cosines = page.sections[1].items
    assert by_language.x_names == ["en", "zh", "ja"]
    assert {curve.name: curve.values for curve in by_language.curves} == {
        "A, mean recall": [0.6, 0.5, 0.3], "B, mean recall": [0.7, 0.6, 0.4]
    }  # fmt: skip
    names = [f"{letter}, {one}" for letter in "AB" for one in ("belong together", "at random")]
    assert [[curve.name for curve in chart.curves] for chart in cosines] == [names] * 3
    # A confusion matrix of only one of the two is not compared.
    alone = Results("bundles/m9", (CLASSES,))
    assert [section.title for section in report(alone, other=alone).sections] == ["Figures"]


def worse(test):
    return replace(test, figures={name: round(value - 0.1, 6) for name, value in test.figures.items()})


def test_variants_are_not_averaged_like_languages():
    tests = [replace(CLASSES, variant=f"{shots} a class", kind="probe") for shots in (1, 4, 2)]
    (table,) = tables(Results("b", tuple(tests)))
    assert [row.label for row in table.groups[0].rows] == [
        f"English (en), {n} a class" for n in (1, 4, 2)
    ]  # without a mean
    chart = report(Results("b", tuple(tests))).sections[1].items[0]
    assert (chart.x_names, chart.x_label) == (["1 a class", "4 a class", "2 a class"], "training images")


def test_plots_of_the_results():
    items = [item for section in report(FINDINGS).sections for item in section.items if not isinstance(item, Table)]
    by_language, *cosines, matrix = items
    assert isinstance(by_language, Chart) and isinstance(matrix, Matrix)
    assert by_language.x_names == ["en", "zh", "ja"]  # the best first
    assert by_language.curves[0].values == [0.7, 0.6, 0.4]
    assert [len(chart.curves) for chart in cosines] == [2, 2, 2]
    assert cosines[0].curves[0].steps == [0.25, 0.75]
    assert matrix.counts == ((3, 1), (2, 2))


def test_the_pages_show_the_figures(tmp_path):
    write_pages(FINDINGS, tmp_path)
    page, plain = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "55.0 to 65.0" in page and "<b>60.0</b>" in page
    assert 'title="a|b taken for c: 1 of 4"' in page
    assert ">日本語 (ja)<" in page and ">en</text>" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "| 中文 (zh) | 60.0 (55.0 to 65.0) | 60.0 |" in plain
    assert "| a\\|b | 3 | 1 |" in plain
    assert not re.search(r"^## .*\n+(## |\Z)", plain, re.MULTILINE)  # Markdown has no plots: no empty section
    assert all(line.count("|") - line.count("\\|") == 4 for line in plain.splitlines() if line.startswith("| 中文"))
