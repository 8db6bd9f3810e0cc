"""Charts as inline SVG, drawn by matplotlib and coloured by the page's style sheet, in light and in dark mode.

matplotlib draws placeholders, which are then replaced by the names in the SVG. So matplotlib reads no name as mathtext
and needs no font for its script; the browser's fonts show it.
"""

import io
import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jclip.evaluate.report.elements import Chart, Curve
from jclip.plain import as_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 460, 260  # in points, which are the drawing's units
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 38  # margins
_POINTS = 200  # longer curves are averaged, to keep the page small
_SOFT, _LINE, _CARD, *_CURVES = (f"#0000{i:02x}" for i in range(1, 12))  # placeholders of the style sheet's variables
_VARIABLES = {_SOFT: "soft", _LINE: "line", _CARD: "card", **{colour: f"s{i}" for i, colour in enumerate(_CURVES)}}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jclip",
    "path.simplify": False,  # it would drop the dots, which are lines without length
    "font.size": 12,
    "text.color": _SOFT,
    "axes.labelcolor": _SOFT,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "grid.color": _LINE,
    "grid.linewidth": 1,
}


def svg(chart: Chart) -> str:
    """Returns the chart as an <svg> element. Without a finite value it says "nothing recorded"."""
    opening = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{as_html(chart.title)}">'
    curves = [_thin(curve) for curve in chart.curves]
    if not any(math.isfinite(y) for points in curves for _, y in points):
        return f'{opening}<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">nothing recorded</text></svg>'
    names = [chart.x_label, *chart.x_names, *(name for name, _ in (*chart.marks, *chart.levels))]
    drawn = _matplotlib(chart, curves, {name: f"@{i}@" for i, name in enumerate(names)})
    drawn = drawn[drawn.index("<g ") :]
    drawn = re.sub(r'\n\s*| id="(?!curve)[^"]*"| transform="rotate\(-0 [^"]*"| font-family:[^;]*;', "", drawn)
    drawn = re.sub(r'(?<=<path d=")[^"]*', _rounded, drawn)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    drawn = re.sub(r"@(\d+)@", lambda place: as_html(names[int(place[1])]), drawn)
    for index, (curve, points) in enumerate(zip(chart.curves, curves, strict=True)):
        last = [_number(y, chart.percent, exact=True) for _, y in points if math.isfinite(y)][-1:]
        title = as_html(f"{curve.name}: {''.join(last)} at the end")
        drawn = drawn.replace(f'<g id="curve{index}">', f'<g class="curve"><title>{title}</title>')
    return opening + drawn


def _matplotlib(chart: Chart, curves: list[list[tuple[float, float]]], placeholders: dict[str, str]) -> str:
    """Returns matplotlib's SVG file of a chart whose names are placeholders."""
    import matplotlib
    from matplotlib.figure import Figure

    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure((_WIDTH / 72, _HEIGHT / 72))
        axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, width / _WIDTH, height / _HEIGHT), frameon=False)
        _draw_axes(axes, chart, curves, placeholders)
        for index, points in enumerate(curves):
            colour = _CURVES[index % len(_CURVES)]
            axes.plot(*zip(*points, strict=True), color=colour, lw=2, gid=f"curve{index}", solid_capstyle="round")
            for x, y in [point for point in points if math.isfinite(point[1])][-1:]:
                for size, fill in ((9, _CARD), (7, colour)):  # a dot with an outline
                    axes.plot([x, x], [y, y], color=fill, lw=size, solid_capstyle="round", gid=f"curve{index}")
        for artist in figure.findobj():
            artist.set_clip_on(False)  # clip paths would be references
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return file.getvalue()


def _draw_axes(
    axes: "Axes", chart: Chart, curves: list[list[tuple[float, float]]], placeholders: dict[str, str]
) -> None:
    """Draws grid, tick labels, levels and marks, and sets the limits of both axes."""
    from matplotlib.ticker import MaxNLocator

    levels = [(name, value) for name, value in chart.levels if math.isfinite(value)]
    xs = [x for points in curves for x, _ in points] + [step for _, step in chart.marks]
    ys = [y for points in curves for _, y in points if math.isfinite(y)] + [value for _, value in levels]
    low, high = min(xs), max(xs)
    axes.set_xlim(low, high if high > low else low + 1)
    y_ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(min(0, *ys), max(ys))
    axes.set_ylim(y_ticks[0], y_ticks[-1])
    axes.set_yticks(y_ticks, [_number(y, chart.percent) for y in y_ticks])
    if chart.x_names:
        axes.set_xticks(range(len(chart.x_names)), [placeholders[name] for name in chart.x_names])
    else:
        x_ticks = [x for x in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= x <= high]
        axes.set_xticks(x_ticks, [_number(x) for x in x_ticks])
    axes.tick_params(left=False, bottom=False, pad=6)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    axes.text(middle / _WIDTH, 4 / _HEIGHT, placeholders[chart.x_label], ha="center", transform=axes.figure.transFigure)
    for name, step in chart.marks:
        axes.axvline(step, color=_SOFT, alpha=0.5, lw=1)
        # Below the curves, which rise from stage to stage, and above the name of a level.
        axes.annotate(placeholders[name], (step, 0), (4, 80), axes.get_xaxis_transform(), "offset points", size=11)
    for name, value in levels:
        axes.axhline(value, color=_SOFT, lw=1.2, ls=(0, (4, 4)))
        place = axes.get_yaxis_transform()
        axes.annotate(placeholders[name], (1, value), (0, 4), place, "offset points", ha="right", size=11)


def _thin(curve: Curve) -> list[tuple[float, float]]:
    """Returns at most _POINTS points, each the mean of its neighbours."""
    points = list(zip(map(float, curve.steps), map(float, curve.values), strict=True))
    if len(points) <= _POINTS:
        return points
    edges = [round(i * len(points) / _POINTS) for i in range(_POINTS + 1)]
    bins = [points[start:end] for start, end in pairwise(edges)]
    return [(math.fsum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in bins]


def _rounded(path: re.Match[str]) -> str:
    """Returns a path with one decimal in each coordinate."""
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path[0])


def _number(value: float, percent: bool = False, exact: bool = False) -> str:
    if percent:
        return f"{100 * value:.1f}%" if exact else f"{100 * value:.3g}%"
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    if value == round(value) and abs(value) < 1e6:
        return f"{round(value):,}"
    return f"{value:.4g}"
