"""Charts, with coordinates by hand: the plot's corners are (44, 12) and (450, 222) in the drawing's units."""

import math
import re
import subprocess
import sys

import pytest

from jclip.evaluate.report.elements import Chart, Curve
from jclip.evaluate.report.plots import svg


def paths(chart: Chart) -> list[str]:
    """Returns the path data of the curves, without the dots at their ends."""
    drawn = re.findall(r'<g class="curve"><title>[^<]*</title><path d="([^"]*?) ?" style="([^"]*)"', svg(chart))
    return [path for path, style in drawn if "stroke-width: 2;" in style]


def texts(drawn: str) -> list[str]:
    return re.findall(r">([^<]*)</text>", drawn)


def test_a_line_by_hand():
    assert paths(Chart("t", (Curve("a", (0, 5, 10), (0.0, 1.0, 2.0)),))) == ["M 44 222 L 247 117 L 450 12"]


def test_values_that_are_not_finite_are_gaps():
    (path,) = paths(Chart("t", (Curve("a", (0, 1, 2, 3, 4), (0.0, 1.0, math.nan, 1.0, 2.0)),)))
    assert path == "M 44 222 L 145.5 117 M 348.5 117 L 450 12"
    assert "nan" not in svg(Chart("t", (Curve("a", (0, 1), (0.0, math.inf)),), levels=(("chance", math.nan),)))


def test_many_points_are_averaged():
    (path,) = paths(Chart("t", (Curve("a", range(4000), [k % 2 for k in range(4000)]),)))
    heights = {point.split()[1] for point in re.split("[ML] ", path)[1:]}
    assert path.count("L") == 199
    assert len(heights) == 1  # zeros and ones in turn: every mean is one half


@pytest.mark.parametrize("curves", [(), (Curve("a", (), ()),), (Curve("a", (1,), (math.nan,)),)])
def test_a_chart_without_data_says_so(curves):
    assert "nothing recorded" in svg(Chart("t", curves))


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_one_point_is_a_dot(value):
    drawn = svg(Chart("t", (Curve("a", (3,), (value,)),)))
    assert len(re.findall(r"stroke: var\(--s0\); stroke-width: 7; stroke-linecap: round", drawn)) == 1


def test_percentages_levels_and_marks():
    chart = Chart(
        "t", (Curve("a", (0, 10), (0.0, 0.2)),), levels=(("chance", 0.1),), marks=(("stage 2", 5),), percent=True
    )
    drawn = svg(chart)
    assert {"0%", "5%", "20%", "chance", "stage 2", "step"} <= set(texts(drawn))
    assert "a: 20.0% at the end" in drawn
    assert re.search(r'<path d="M 44 117 L 450 117 " style="[^"]*stroke-dasharray', drawn)
    assert re.search(r'<path d="M 247 222 L 247 12 " style="[^"]*stroke-opacity: 0.5', drawn)


def test_ticks_are_round_numbers():
    drawn = texts(svg(Chart("t", (Curve("a", (0, 3000), (0.3, 4.1)),))))
    assert drawn[:7] == ["0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"]
    assert drawn[7:13] == ["0", "1", "2", "3", "4", "5"]
    assert "0.05" in texts(svg(Chart("t", (Curve("a", (0, 1), (0.0, 0.2)),))))


def test_names_are_text_as_they_are():
    """They are never mathtext or a placeholder, in any script."""
    name = "$x^2$ 对比 @0@ _<b>_"
    chart = Chart(
        name,
        (Curve(name, (0, 1), (0, 1)),),
        levels=((name, 0.5),),
        marks=((name, 0),),
        x_label=name,
        x_names=(name, "b"),
    )
    shown = "$x^2$ 对比 @0@ _&lt;b&gt;_"
    drawn = svg(chart)
    assert texts(drawn).count(shown) == 4 and f'aria-label="{shown}"' in drawn and f"<title>{shown}: 1 at" in drawn


def test_colours_are_the_pages_and_nothing_is_referenced():
    drawn = svg(Chart("t", [Curve(str(i), (0, 1), (0, i)) for i in range(8)]))
    assert all(f"var(--s{i})" in drawn for i in range(8))
    assert not re.search("#[0-9a-f]{6}|url|href|xmlns|font-family| id=", drawn)


def test_the_drawing_is_the_same_in_every_process():
    program = (
        "import matplotlib; matplotlib.rcParams['font.size'] = 40\n"
        "from jclip.evaluate.report.elements import Chart, Curve\n"
        "from jclip.evaluate.report.plots import svg\n"
        "print(svg(Chart('t', [Curve('a', (0, 1), (0, 1))])))"
    )
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert again.strip() == svg(Chart("t", [Curve("a", (0, 1), (0, 1))]))
