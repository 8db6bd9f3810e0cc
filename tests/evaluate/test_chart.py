"""Coordinates by hand: the plot's corners are (44, 12) and (450, 222) in the drawing's units."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.evaluate.report.chart import Chart, Curve, svg, ticks


def paths(chart: Chart) -> list[str]:
    """The curves' own path data."""
    return re.findall(r'<path class="curve s\d" d="([^"]*)"', svg(chart))


def test_a_line_by_hand():
    assert paths(Chart("t", (Curve("a", (0, 5, 10), (0.0, 1.0, 2.0)),))) == ["M44.0 222.0L247.0 117.0L450.0 12.0"]


def test_values_that_are_not_finite_are_gaps():
    (path,) = paths(Chart("t", (Curve("a", (0, 1, 2, 3, 4), (0.0, 1.0, math.nan, 1.0, 2.0)),)))
    assert path == "M44.0 222.0L145.5 117.0M348.5 117.0L450.0 12.0"
    assert "nan" not in svg(Chart("t", (Curve("a", (0, 1), (0.0, math.inf)),), levels=(("chance", math.nan),)))


def test_many_points_are_averaged():
    (path,) = paths(Chart("t", (Curve("a", range(4000), [k % 2 for k in range(4000)]),)))
    heights = {point.split()[1] for point in re.split("[ML]", path)[1:]}
    assert path.count("L") == 199
    assert len(heights) == 1  # zeros and ones in turn: every mean is one half


@pytest.mark.parametrize("curves", [(), (Curve("a", (), ()),), (Curve("a", (1,), (math.nan,)),)])
def test_nothing_to_draw_is_said(curves):
    assert "nothing recorded" in svg(Chart("t", curves))


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_one_point_is_a_dot(value):
    drawn = svg(Chart("t", (Curve("a", (3,), (value,)),), from_zero=False))
    assert len(re.findall("<circle", drawn)) == 1


def test_percentages_levels_and_marks():
    chart = Chart(
        "t", (Curve("a", (0, 10), (0.0, 0.2)),), levels=(("chance", 0.1),), marks=(("stage 2", 5),), percent=True
    )
    drawn = svg(chart)
    assert ">20%<" in drawn
    assert "a: 20.0% at the end" in drawn
    assert '<path class="level" d="M44 117.0H450"/>' in drawn
    assert '<path class="stage" d="M247.0 12V222"/>' in drawn


def test_ticks_by_hand():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.3, 4.1, 5) == [0, 1, 2, 3, 4, 5]
    assert ticks(0, 900, 6) == [0, 200, 400, 600, 800, 1000]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 8))
def test_ticks_cover_the_range_in_few_steps(low, span, about):
    at = ticks(low, low + span, about)
    assert at[0] <= low + span * 1e-6
    assert at[-1] >= low + span * (1 - 1e-6)
    assert 2 <= len(at) <= about + 2
