"""Curves as SVG: a string to put into a page, coloured by the page's style sheet so that it follows light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jclip.plain import as_html as escape

# The drawing's own units; the page scales it.
_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 38
_POINTS = 200  # more than these are averaged: the eye cannot tell, and the page stays small


@dataclass(frozen=True)
class Curve:
    """A named line; values that are not finite are gaps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Curves on common axes.

    Attributes:
      title: what is shown, and its unit.
      curves: drawn in the order of their colours, eight at most.
      note: a sentence under it.
      levels: horizontal lines, such as chance: (name, value).
      marks: vertical lines, such as the start of a stage: (name, step).
      x_label: what the steps count.
      x_names: what stands at steps 0, 1, 2, … of the axis, where they are no numbers.
      percent: values are fractions, shown as percentages.
      from_zero: the vertical axis starts at zero even if no value comes near.
    """

    title: str
    curves: Sequence[Curve]
    note: str = ""
    levels: Sequence[tuple[str, float]] = ()
    marks: Sequence[tuple[str, float]] = ()
    x_label: str = "step"
    x_names: Sequence[str] = ()
    percent: bool = False
    from_zero: bool = True


def svg(chart: Chart) -> str:
    """The chart as an <svg> element; a chart without a single finite point says that it is empty."""
    curves = [_thin(curve) for curve in chart.curves]
    xs = [x for points in curves for x, _ in points]
    ys = [y for points in curves for _, y in points if math.isfinite(y)]
    label = escape(chart.title)
    opening = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
    if not ys:
        return f'{opening}<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">nothing recorded</text></svg>'
    ys += [value for _, value in chart.levels if math.isfinite(value)]
    xs += [step for _, step in chart.marks]
    x_ticks = ticks(min(xs), max(xs), 6)
    y_ticks = ticks(min(0.0, *ys) if chart.from_zero else min(ys), max(ys), 5)
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)

    def x_at(x: float) -> float:
        return _LEFT + (x - x_low) / ((x_high - x_low) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [opening]
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y_at(y):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y_at(y) + 4:.1f}" text-anchor="end">{_number(y, chart.percent)}</text>'
        )
    for place, name in enumerate(chart.x_names):
        parts.append(f'<text x="{x_at(place):.1f}" y="{_HEIGHT - 20}" text-anchor="middle">{escape(name)}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high and not chart.x_names:
            anchor = "end" if x_at(x) > _WIDTH - 30 else "middle"
            parts.append(f'<text x="{x_at(x):.1f}" y="{_HEIGHT - 20}" text-anchor="{anchor}">{_number(x)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(chart.x_label)}</text>')
    for name, step in chart.marks:
        parts.append(f'<path class="stage" d="M{x_at(step):.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        # Low, but above the name of a level: the curve of what grows from stage to stage is at the top by then.
        parts.append(f'<text class="stage" x="{x_at(step) + 4:.1f}" y="{_HEIGHT - _BOTTOM - 80}">{escape(name)}</text>')
    for name, value in chart.levels:
        if math.isfinite(value):
            parts.append(f'<path class="level" d="M{_LEFT} {y_at(value):.1f}H{_WIDTH - _RIGHT}"/>')
            text = f'x="{_WIDTH - _RIGHT}" y="{y_at(value) - 4:.1f}" text-anchor="end"'
            parts.append(f'<text class="level" {text}>{escape(name)}</text>')
    for index, (curve, points) in enumerate(zip(chart.curves, curves, strict=True)):
        shape = _path([(x_at(x), y_at(y)) for x, y in points])
        if shape:
            last_x, last_y = next((x, y) for x, y in reversed(points) if math.isfinite(y))
            told = f"<title>{escape(curve.name)}: {_number(last_y, chart.percent, exact=True)} at the end</title>"
            parts.append(f'<path class="curve s{index % 8}" d="{shape}">{told}</path>')
            centre = f'cx="{x_at(last_x):.1f}" cy="{y_at(last_y):.1f}"'
            parts.append(f'<circle class="s{index % 8}" {centre} r="3.5">{told}</circle>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high], roughly `about` of them."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    apart = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= about)
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [k * apart for k in range(first, last + 1)]


def _thin(curve: Curve) -> list[tuple[float, float]]:
    """At most _POINTS points, each the mean of its neighbourhood."""
    points = list(zip(map(float, curve.steps), map(float, curve.values), strict=True))
    if len(points) <= _POINTS:
        return points
    edges = [round(i * len(points) / _POINTS) for i in range(_POINTS + 1)]
    bins = [points[start:end] for start, end in pairwise(edges)]
    return [(math.fsum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in bins]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path; points that are not finite break the line."""
    parts, drawing = [], False
    for x, y in points:
        if not math.isfinite(y):
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = True
    return "".join(parts)


def _number(value: float, percent: bool = False, exact: bool = False) -> str:
    if percent:
        return f"{100 * value:.{1 if exact else 0}f}%"
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    if value == round(value) and abs(value) < 1e6:
        return f"{round(value):,}"
    return f"{value:.4g}"
