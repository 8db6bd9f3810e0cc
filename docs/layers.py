"""Draws the layers of the package, docs/layers.svg: `python -m docs.layers`.

A part is a module or subpackage of jclip. The layers are `LAYERS` of tests/test_layout.py, which the tests enforce. The
lines are imports. Imports that follow from others are omitted: train imports bundle, and bundle imports models, so
there is no line from train to models. Imports of the lowest layers are omitted too, because every part has them.
"""

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import permutations
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_suffix(".svg")
EXTENDED = {"models", "stages", "data", "train", "conversion", "search", "export"}
"""Parts with an interface for kinds of your own, such as towers, sources, checkpoint families, stores and exports."""

_BASE = 4  # number of lowest layers; lines to them are not drawn, except to io
_WIDTH, _ROW, _BOX, _LETTER = 980, 58, 30, 8.2  # pixels
_STYLE = (
    "text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#1f2933;text-anchor:middle}"
    ".layer{fill:#f5f7fa}.part{fill:#fff;stroke:#7b8794}.file{fill:#fff;stroke:#cbd2d9;stroke-dasharray:3 2}"
    ".open{fill:#e3f2fd;stroke:#1976d2}.import{fill:none;stroke:#9aa5b1;stroke-opacity:.75}.note{font-size:12px}"
)

_NOTES = (
    "A part imports from layers below. Solid: folder. Dashed: file. Blue: has an interface for kinds of your own.",
    "A line is an import. Omitted: imports that follow from others, and imports of the four lowest layers except io.",
)


def layers() -> list[list[str]]:
    """Returns the names of the parts in each layer, the lowest first."""
    tree = ast.parse((ROOT / "tests" / "test_layout.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "LAYERS":
            return [sorted(parts) for parts in ast.literal_eval(node.value)]
    raise LookupError("tests/test_layout.py has no LAYERS")


def files(part: str) -> list[Path]:
    """Returns the source files of a part: a module, or a package whose folder may be a link."""
    module = ROOT / "jclip" / f"{part}.py"
    if module.exists():
        return [module]
    walk = os.walk(ROOT / "jclip" / part, followlinks=True)
    return sorted(Path(folder, name) for folder, _, names in walk for name in names if name.endswith(".py"))


def imported(file: Path) -> Iterator[str]:
    """Yields the parts that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "jclip":
                yield rest.partition(".")[0]


def imports(parts: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """Returns the parts of lower layers that each part imports, without those that follow from others."""
    level = {part: number for number, row in enumerate(parts) for part in row}
    direct = {
        part: {other for file in files(part) for other in imported(file) if level.get(other, level[part]) < level[part]}
        for part in level
    }
    reached: dict[str, set[str]] = {}
    for part in level:  # the lowest layer first
        reached[part] = direct[part].union(*(reached[other] for other in direct[part]))
    return {
        part: {other for other in found if not any(other in reached[third] for third in found)}
        for part, found in direct.items()
    }


def width(part: str) -> int:
    """Returns the width of a part's box, pixels."""
    return round(len(part) * _LETTER + 22)


def places(rows: Sequence[Sequence[str]], below: Mapping[str, set[str]]) -> dict[str, float]:
    """Returns the horizontal centre of each part, pixels, chosen so that few lines pass behind other parts."""
    level = {part: number for number, row in enumerate(rows) for part in row}
    lines = [(part, other) for part, others in below.items() for other in sorted(others)]

    def cost(place: dict[str, float]) -> float:
        total = 0.0
        for part, other in lines:
            start, end = place[part], place[other]
            total += abs(start - end) / _WIDTH
            for number in range(level[other] + 1, level[part]):
                # The curve of `picture`, near the row's upper edge, middle and lower edge.
                for offset in (-0.25, 0.0, 0.25):
                    t = (level[part] - number - offset) / (level[part] - level[other])
                    x = start + (end - start) * t * t * (3 - 2 * t)
                    total += sum(abs(x - place[each]) < width(each) / 2 + 8 for each in rows[number])
        return total

    place = {part: _WIDTH * (i + 0.5) / len(row) for row in rows for i, part in enumerate(row)}
    for row in [*rows[_BASE - 1 :]] * 4:
        columns = range(max(len(row), 7 if len(row) == 1 else 0))
        choices = permutations([_WIDTH * (i + 0.5) / len(columns) for i in columns], len(row))
        place = min((place | dict(zip(row, each, strict=True)) for each in choices), key=cost)
    return place


def picture() -> str:
    """Returns the SVG."""
    rows = layers()
    base = {part for row in rows[:_BASE] for part in row} - {"io"}
    below = {part: others - base for part, others in imports(rows).items()}
    place = places(rows, below)
    height = _ROW * len(rows) + 6 + 18 * len(_NOTES)
    at: dict[str, tuple[float, float]] = {}
    shapes = []
    for number, row in enumerate(rows):
        top = _ROW * (len(rows) - 1 - number) + 6
        shapes.append(f'<rect class="layer" x="6" y="{top}" width="{_WIDTH - 12}" height="{_ROW - 8}" rx="6"/>')
        for part in row:
            at[part] = (round(place[part]), top + (_ROW - 8 - _BOX) / 2)
    for part, others in below.items():
        for other in sorted(others):
            (start, y), (end, y2) = at[part], at[other]
            foot = y + _BOX
            middle = (y2 - foot) / 2
            path = f"M{start:g} {foot:g}C{start:g} {foot + middle:g} {end:g} {y2 - middle:g} {end:g} {y2:g}"
            shapes.append(f'<path class="import" d="{path}"/>')
    for part, (x, y) in at.items():
        kind = "open" if part in EXTENDED else "file" if (ROOT / "jclip" / f"{part}.py").exists() else "part"
        shapes.append(
            f'<rect class="{kind}" x="{x - width(part) / 2:g}" y="{y:g}" width="{width(part)}" height="{_BOX}" rx="5"/>'
        )
        shapes.append(f'<text x="{x:g}" y="{y + 20:g}">{escape(part)}</text>')
    for number, note in enumerate(_NOTES):
        line = _ROW * len(rows) + 18 * (number + 1)
        shapes.append(f'<text class="note" x="{_WIDTH / 2:g}" y="{line}">{escape(note)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}">'
    background = f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", background, *shapes, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
