"""The report page shows all figures, refers to nothing outside itself, and no text can break it."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from jclip.evaluate.languages import LANGUAGE_NAMES, name_of
from jclip.evaluate.report.elements import (
    Answer,
    Chart,
    Credit,
    Curve,
    Gallery,
    Group,
    Query,
    Report,
    Row,
    Section,
    Table,
)
from jclip.evaluate.report.render import html, write
from jclip.evaluate.report.terminal import TerminalTable

CHANCE = Row("chance", (0.0014, 0.0135))
PIXELS = Row("nearest picture in pixels", (0.29, 0.51))
TABLE = Table(
    "Known concepts, a new artist",
    ("R@1", "R@10"),
    (
        Group("stage 1", (Row("中文", (0.25, 0.59), before=(0.001, None)),), (CHANCE, PIXELS)),
        Group("stage 2", (Row("العربية", (0.5, 1.0)),)),
    ),
    note="One seed.",
)
QUERY = Query("狗脸", "zh", "中文", (Answer(b"one", False, "cat"), Answer(b"two", True, "dog")), "dog face", rank=2)
CURVES = Chart("R@1", (Curve("en", (0, 10), (0.0, 0.2)), Curve("zh", (0, 10), (0.0, 0.1))), percent=True)
REPORT = Report(
    "jclip demo",
    "First.\n\nSecond.",
    (Section("Results", "Read this.", (TABLE, CURVES, CURVES, Gallery("Queries", (QUERY,)))),),
    facts=(("trained in", "8 min"),),
    credits=(Credit("OpenMoji", "CC-BY-SA-4.0", "https://openmoji.org"),),
    footer="jclip 0.1.0",
)


class Reader(HTMLParser):
    """Checks that tags close in the order they opened, and keeps what a test asks for."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def test_the_page_shows_everything():
    page = Reader(html(REPORT)).text
    for words in ("jclip demo", "Second.", "8 min", "中文", "0.1 → 25.0", "59.0", "29.0", "100.0", "One seed."):
        assert words in page
    for words in ("狗脸", "dog face", "found at rank 2", "OpenMoji", "CC-BY-SA-4.0", "jclip 0.1.0"):
        assert words in page


def test_the_page_refers_to_no_other_file():
    tags = Reader(html(REPORT)).tags
    loaded = [value for tag, attrs in tags for key, value in attrs.items() if key in ("src", "href") and tag != "a"]
    assert loaded
    assert all(value.startswith("data:") for value in loaded)
    assert {tag for tag, _ in tags} & {"script", "link", "iframe", "object"} == set()
    assert "url(" not in html(REPORT)
    assert "@import" not in html(REPORT)


def test_pictures_are_embedded_with_right_and_wrong():
    tags = Reader(html(REPORT)).tags
    pictures = [attrs for tag, attrs in tags if tag == "img"]
    assert [base64.b64decode(attrs["src"].split(",")[1]) for attrs in pictures] == [b"one", b"two"]
    assert [attrs["alt"] for attrs in pictures] == ["cat, wrong", "dog, right"]
    assert [attrs["class"] for tag, attrs in tags if tag == "li" and attrs.get("title")] == ["wrong", "right"]


def test_bars_stand_where_the_figures_are():
    styles = [(attrs["class"], attrs["style"]) for tag, attrs in Reader(html(REPORT)).tags if tag == "i"]
    first = [("fill", "width:25.00%"), ("before", "left:0.10%"), ("r0", "left:0.14%"), ("r1", "left:29.00%")]
    assert styles[:4] == first
    assert styles[-2:] == [("fill", "width:50.00%"), ("fill", "width:100.00%")]


def test_each_text_finds_its_language_and_direction():
    (asked,) = [attrs for tag, attrs in Reader(html(REPORT)).tags if tag == "q"]
    assert asked == {"lang": "zh", "dir": "auto"}
    assert "<bdi>العربية</bdi>" in html(REPORT)


@given(st.text(alphabet=st.sampled_from("<>&\"'/=a ;漢ع[]"), min_size=1, max_size=12))
def test_no_text_breaks_the_page(text):
    row, query = Row(text, (0.1,)), replace(QUERY, text=text, language=text, meaning=text)
    table = Table(text, (text,), (Group(text, (row,), (row,)),), note=text)
    chart = replace(CURVES, title=text, levels=((text, 0.1),), marks=((text, 5),), note=text, x_label=text)
    gallery = Gallery(text, (replace(query, answers=(Answer(b"", True, text),)),), text)
    section = Section(text, text, (table, chart, gallery))
    page = Reader(html(Report(text, text, (section,), ((text, text),), (Credit(text, text, text, text),), text)))
    plain = Reader(html(replace(REPORT, title="x")))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    Console(quiet=True).print(TerminalTable(table))


def test_missing_and_non_finite_figures_are_shown_as_such():
    page = Reader(html(_page(_one_row(Row("en", (None, math.nan))))))
    assert [cell for cell in ("–", "not a number") if cell in page.words] == ["–", "not a number"]
    assert [attrs for tag, attrs in page.tags if tag == "i"] == []


def test_a_row_of_another_length_is_named():
    for rows in ((Row("français", (0.1,)),), (Row("français", (0.1, 0.2), (0.3,)),)):
        for group in (Group("g", rows), Group("g", (), rows)):
            with pytest.raises(ValueError, match="row 'français' of table 'T' needs 2 figures"):
                Table("T", ("R@1", "R@10"), (group,))


def test_the_terminal_shows_the_same_figures():
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(TerminalTable(TABLE))
    lines = [re.sub(r"[│┃]", " ", line).split() for line in console.export_text().splitlines()]
    assert ["中文", "0.1", "→", "25.0", "59.0"] in lines
    assert ["nearest", "picture", "in", "pixels", "29.0", "51.0"] in lines
    assert ["العربية", "50.0", "100.0"] in lines


WIDE = Table(
    "Retrieval: bundles/altclip-m9",
    (*(f"{way} R@{k}" for way in ("T→I", "I→T") for k in (1, 5, 10)), "mean recall"),
    (
        Group(
            "data/crossmodal-3600 (test): 3,600 pictures, 7,200 captions, and a path that goes on and on and on and on",
            [Row(name_of(code), [0.5] * 6 + [1.0], None, [(0.4, 0.6)] * 7) for code in LANGUAGE_NAMES],
            [Row("chance", [0.001] * 6 + [None])],
        ),
    ),
    main=6,
)


def printed(table, width=80):
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(TerminalTable(table))
    return console.export_text().splitlines()


def test_seven_figures_and_an_interval_fit_into_eighty_columns():
    lines = printed(WIDE)
    assert max(map(cell_len, lines)) <= 80
    assert [line.split() for line in lines[2:4]] == [
        ["T→I", "I→T", "mean", "95", "%"],
        ["R@1", "R@5", "R@10", "R@1", "R@5", "R@10", "recall", "interval"],
    ]
    rows = [line for line in lines if "40.0 to 60.0" in line]
    assert len(rows) == len(LANGUAGE_NAMES)  # one line each, with an interval of the main figure only
    assert rows[0].split()[-10:] == [*["50.0"] * 6, "100.0", "40.0", "to", "60.0"]
    assert len({cell_len(line) for line in rows}) == 1
    long = replace(WIDE, groups=(Group("g", [replace(WIDE.groups[0].rows[0], label="a name " * 8)]),))
    assert max(map(cell_len, printed(long))) <= 80 and any("a name a name" in line for line in printed(long))


def test_columns_with_arrows_are_separated():
    pairs = Row("en", (0.25, 0.5), (0.125, 0.375))
    assert any("12.5 → 25.0  37.5 → 50.0" in line for line in printed(_one_row(pairs)))


def test_two_models_are_shown_under_each_other():
    row = Row("en", (0.5, 0.25), (0.4, None), [(0.4, 0.6), None], [(-0.012, 0.2), None])
    lines = [line.split() for line in printed(replace(_one_row(row), stacked=True))]
    assert lines[5:9] == [
        ["en"], ["A", "40.0", "–"], ["B", "50.0", "40.0", "to", "60.0", "25.0"],
        ["B", "−", "A", "+10.0", "−1.2", "to", "+20.0", "–"],
    ]  # fmt: skip
    page = html(_page(_one_row(row)))
    assert "−1.2 to +20.0" in page and "40.0 to 60.0" not in page


def test_writing_replaces_the_page_in_one_step(tmp_path):
    path = tmp_path / "run" / "report.html"
    write(REPORT, path)
    write(replace(REPORT, title="later"), path)
    assert "<title>later</title>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def _one_row(row: Row) -> Table:
    return Table("T", ("R@1", "R@10"), (Group("g", (row,)),))


def _page(table: Table) -> Report:
    return Report("t", "", (Section("s", items=(table,)),))
