"""Practice data for fine-tuning: a folder of images and a spreadsheet of captions.

    my-pictures/动物与自然/猫头鹰-1.png, …    images in sub-folders
    my-pictures/pictures.csv               columns 图片,描述; UTF-8 with a BOM and CRLF, as Excel writes "CSV UTF-8"
    my-pictures/LICENCES.txt               attribution of the artists; not with shapes

Emoji are concepts that no run of the demo trains on, each drawn by three artists. Shapes are drawn here and need no
network.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from jclip.demo.emoji.artists import ARTISTS
from jclip.demo.emoji.sources import emoji_set
from jclip.errors import JclipError
from jclip.io.files import check_free, whole_folder

TABLE = "pictures.csv"
"""Name of the spreadsheet in the folder."""
COLUMNS = ("图片", "描述")
"""Headings of the spreadsheet: image, caption."""
SIDE = 72
"""Height and width of a drawn image, in pixels."""

_GROUPS = {
    "Animals & Nature": "动物与自然",
    "Food & Drink": "食物",
    "Activities": "活动",
    "Objects": "物品",
    "Travel & Places": "旅行与地点",
}
_COLOURS = {
    "红": (214, 39, 40),
    "橙": (255, 127, 14),
    "黄": (240, 210, 30),
    "绿": (44, 160, 44),
    "青": (23, 190, 207),
    "蓝": (31, 87, 220),
    "紫": (148, 70, 189),
    "粉": (247, 150, 200),
    "棕": (130, 80, 50),
    "黑": (20, 20, 20),
}
_BACKGROUNDS = ((255, 255, 255), (238, 238, 232), (228, 236, 245), (245, 236, 226))


class Sample(NamedTuple):
    """An image: its path in the folder, its caption, and the bytes of its PNG file."""

    path: str
    caption: str
    png: bytes


def write_practice(folder: Path, items: Sequence[Sample], licences: Sequence[str] = ()) -> Path:
    """Writes the images and their spreadsheet; returns the spreadsheet. Raises JclipError if the folder exists."""
    with whole_folder(folder, replace=False) as partial:
        for item in items:
            file = partial / item.path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(item.png)
        with (partial / TABLE).open("w", encoding="utf-8-sig", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(COLUMNS)
            rows.writerows((item.path, item.caption) for item in items)
        if licences:
            (partial / "LICENCES.txt").write_text("".join(f"{line}\n" for line in licences), encoding="utf-8")
    return folder / TABLE


def emoji(folder: Path, data: Path, pictures: int, seed: int) -> Path:
    """Writes emoji that the demo never trains on, with their Chinese names; returns the spreadsheet.

    Each of `pictures` / 3 concepts, chosen by `seed`, is drawn by three artists. `data` is the demo's data set, built
    if missing. Raises JclipError if `folder` exists, or the data set cannot be built or has fewer images.
    """
    _check(folder, pictures, seed)
    found = emoji_set(data)
    drawn = {artist: found.encoded(artist) for artist in found.artists}
    rows = found.rows("heldout")
    most = len(rows) * len(drawn)
    if pictures > most:
        raise JclipError(f"--pictures {pictures}: the demo holds out only {most} emoji images: give fewer")
    chosen = np.random.default_rng(seed).permutation(rows)[: -(-pictures // len(drawn))]
    items: list[Sample] = []
    used: dict[str, int] = {}
    for row in chosen.tolist():
        name, group = found.names["zh"][row], _GROUPS[found.concepts[row].group]
        for artist in drawn:
            number = used[name] = used.get(name, 0) + 1
            items.append(Sample(f"{group}/{_file_name(name)}-{number}.png", name, drawn[artist][row]))
    return write_practice(folder, items[:pictures], [artist.credit for artist in ARTISTS.values()])


def shapes(folder: Path, pictures: int, seed: int) -> Path:
    """Draws coloured shapes with captions such as 红色的圆形, without a network; returns the spreadsheet.

    The 100 captions are equally frequent; position, size, angle and background vary. Raises JclipError if `folder`
    exists.
    """
    _check(folder, pictures, seed)
    draw = np.random.default_rng(seed)
    things = [(colour, shape) for colour in _COLOURS for shape in _SHAPES]
    order = draw.permutation(len(things))
    items = []
    for number in range(pictures):
        colour, shape = things[order[number % len(things)]]
        caption = f"{colour}色的{shape}"
        items.append(Sample(f"{shape}/{caption}-{number // len(things) + 1}.png", caption, _shape(colour, shape, draw)))
    return write_practice(folder, items)


def _check(folder: Path, pictures: int, seed: int) -> None:
    if pictures < 1:
        raise JclipError(f"--pictures {pictures} is not possible: give 1 or more, such as 300")
    if seed < 0:
        raise JclipError(f"--seed {seed} is not possible: give 0 or more")
    check_free(folder)


def _file_name(name: str) -> str:
    return "".join("_" if letter in '/\\:*?"<>|' else letter for letter in name)


Points = list[tuple[float, float]]


def _polygon(corners: int, inner: float = 1.0) -> Callable[[], Points]:
    """Returns a function for a regular polygon, point up, with every second corner at `inner` of the radius."""

    def points() -> Points:
        radii = [1.0 if i % 2 == 0 else inner for i in range(corners)]
        angles = [2 * math.pi * i / corners - math.pi / 2 for i in range(corners)]
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]

    return points


def _arc(first: int, last: int) -> Callable[[], Points]:
    """Returns a function for points on the unit circle, in degrees clockwise from the right."""
    return lambda: [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(first, last + 1, 5)]


def _ring() -> Points:
    outer = _arc(0, 360)()
    return outer + [(0.5 * x, 0.5 * y) for x, y in reversed(outer)]


_SHAPES: dict[str, Callable[[], Points]] = {
    "圆形": _arc(0, 355),
    "半圆形": _arc(180, 360),
    "圆环": _ring,
    "三角形": _polygon(3),
    "正方形": lambda: [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "长条": lambda: [(-1, -0.25), (1, -0.25), (1, 0.25), (-1, 0.25)],
    "五角星": _polygon(10, 0.4),
    "六边形": _polygon(6),
    "十字": lambda: [
        *((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)),
        *((0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)),
    ],
    "箭头": lambda: [(-1, -0.25), (0.1, -0.25), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.25), (-1, 0.25)],
}


def _shape(colour: str, shape: str, draw: np.random.Generator) -> bytes:
    """Draws a shape near the centre, rotated by at most 15 degrees, as PNG."""
    large = 4 * SIDE  # then reduced, which smooths the edges
    radius, angle = large * draw.uniform(0.24, 0.4), math.radians(draw.uniform(-15, 15))
    left, top = (large * draw.uniform(0.42, 0.58) for _ in range(2))
    cosine, sine = math.cos(angle), math.sin(angle)
    points = [
        (left + radius * (cosine * x - sine * y), top + radius * (sine * x + cosine * y)) for x, y in _SHAPES[shape]()
    ]
    shade = np.clip(np.array(_COLOURS[colour]) + draw.integers(-12, 13, 3), 0, 255)
    picture = Image.new("RGB", (large, large), _BACKGROUNDS[draw.integers(len(_BACKGROUNDS))])
    ImageDraw.Draw(picture).polygon(points, fill=tuple(shade.tolist()))
    file = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.BOX).save(file, "PNG")
    return file.getvalue()
