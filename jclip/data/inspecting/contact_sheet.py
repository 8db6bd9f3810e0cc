"""Contact sheet of a data folder: images with their captions, for a review before training."""

import base64
import contextlib
import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from jclip.data.inspecting.statistics import class_labels, folder_kind, spread
from jclip.data.sources.folders import LabelledFolder, read_split
from jclip.data.sources.kinds import LABELLED, PARALLEL
from jclip.errors import JclipError
from jclip.images.preprocess import open_picture, rgb
from jclip.io.files import whole_file
from jclip.plain import as_html as escape
from jclip.plain import shown

_SIDE = 168  # pixels of an image on the sheet
_GAP, _LINE, _LINES = 10, 15, 3
_COLUMNS = 8
_MISSING = (200, 60, 60)


class Cell(NamedTuple):
    """Image on the sheet (None if it cannot be read), its heading, and its captions by language."""

    picture: Image.Image | None
    heading: str
    texts: Sequence[tuple[str, str]]


def cells(folder: Path, split: str, count: int) -> list[Cell]:
    """Returns records of a split, evenly spread, with small images. Raises JclipError if there are no images."""
    kind, _ = folder_kind(folder)
    if kind is PARALLEL:
        raise JclipError(f"{folder} holds parallel text, which has no images to show: omit --sheet")
    records = read_split(folder, split, kind)
    names = class_labels(folder, LabelledFolder(str(folder)).classes()) if kind is LABELLED else []
    found = []
    for index in spread(len(records), count):
        record = records[index]
        if kind is LABELLED:
            data, texts = record.picture, [("", names[label]) for label in record.labels]
        else:
            data = record.pictures[0]
            texts = list(zip(record.languages or ("",) * len(record.captions), record.captions, strict=True))
        found.append(_cell(data, index, texts))
    return found


def write_sheet(file: Path, folder: Path, split: str, count: int = 48, font: Path | None = None) -> None:
    """Writes a sheet of `count` images of a split to a new .png or .html.

    `font` is a TrueType or OpenType file for the captions of a .png. By default, it is a Chinese font that fontconfig
    knows; without one, only captions in Latin letters are drawn. An .html leaves fonts to the browser. Raises
    JclipError if the file has another extension or exists, the folder has no images, or the font cannot be read.
    """
    if file.suffix not in (".png", ".html"):
        raise JclipError(f"--sheet {file} is not possible: give a name that ends in .png or .html")
    found = cells(folder, split, count)
    with whole_file(file) as partial:
        if file.suffix == ".png":
            _drawn(found, font).save(partial, "PNG")
        else:
            partial.write_text(_page(found, f"{folder.name}: {split}"), encoding="utf-8")


def _cell(data: Any, index: int, texts: Sequence[tuple[str, str]]) -> Cell:
    try:
        picture = open_picture(data, "")
    except JclipError:
        return Cell(None, f"{index}: cannot be read", texts)
    heading = f"{index}: {picture.width} x {picture.height}"
    picture.thumbnail((_SIDE, _SIDE))
    return Cell(rgb(picture), heading, texts)  # without alpha, as training sees it


def _drawn(found: Sequence[Cell], font: Path | None) -> Image.Image:
    letters, every_script = _letters(font, "".join(text for cell in found for _, text in cell.texts))
    columns = min(_COLUMNS, max(1, len(found)))
    width, height = _SIDE + _GAP, _SIDE + (1 + _LINES) * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, -(-len(found) // columns) * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, cell in enumerate(found):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        if cell.picture is None:
            draw.rectangle((left, top, left + _SIDE, top + _SIDE), outline=_MISSING)
        else:
            spare = _SIDE - cell.picture.width, _SIDE - cell.picture.height
            sheet.paste(cell.picture, (left + spare[0] // 2, top + spare[1] // 2))
        below = top + _SIDE
        draw.text((left, below), cell.heading, _MISSING if cell.picture is None else (120, 120, 120), letters)
        for row, (language, text) in enumerate(cell.texts[:_LINES], 1):
            shown = text if every_script or _latin(text) else "(give --font to see it)"
            shown = _fitted(f"{language} {shown}".strip(), letters, draw)
            draw.text((left, below + row * _LINE), shown, "black", letters)
    return sheet


def _letters(font: Path | None, text: str) -> tuple[Any, bool]:
    """Returns the given font, or a Chinese one from fontconfig; and True if it has more than Latin letters."""
    if font is not None:
        try:
            return ImageFont.truetype(font, _LINE - 3), True
        except OSError:
            raise JclipError(f"--font {font} is not a font: name a .ttf or .otf file") from None
    program = shutil.which("fc-list")
    if program and not _latin(text):
        command = [program, ":lang=zh-cn", "--format", "%{file}\n"]
        listed = subprocess.run(command, capture_output=True, encoding="utf-8", errors="surrogateescape")
        # Prefers regular faces; by name alone, "Bold" would come first.
        for file in sorted(listed.stdout.splitlines(), key=lambda file: ("Regular" not in file, file)):
            with contextlib.suppress(OSError):
                return ImageFont.truetype(file, _LINE - 3), True
    return ImageFont.load_default(_LINE - 3), False


def _latin(text: str) -> bool:
    return all(letter < "\u0250" for letter in text)


def _fitted(text: str, font: Any, draw: ImageDraw.ImageDraw) -> str:
    text = shown(" ".join(text.split()))
    if draw.textlength(text, font) <= _SIDE:
        return text
    while text and draw.textlength(f"{text}…", font) > _SIDE:
        text = text[:-1]
    return f"{text}…"


def _page(found: Sequence[Cell], title: str) -> str:
    figures = "\n".join(_figure(cell) for cell in found)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>\n<main>\n{figures}\n</main></body></html>\n"
    )


def _figure(cell: Cell) -> str:
    shown = '<div class="missing"></div>'
    if cell.picture is not None:
        buffer = io.BytesIO()
        cell.picture.save(buffer, "JPEG", quality=85)
        data = base64.b64encode(buffer.getvalue()).decode()
        shown = f'<img src="data:image/jpeg;base64,{data}" alt="">'
    texts = "".join(
        f'<li lang="{escape(language)}">{escape(text)}</li>' if language else f"<li>{escape(text)}</li>"
        for language, text in cell.texts
    )
    return f"<figure>{shown}<figcaption><small>{escape(cell.heading)}</small><ul>{texts}</ul></figcaption></figure>"


_STYLE = f"""
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }}
body {{ margin: 1.5rem; }} h1 {{ font-size: 1.2rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax({_SIDE}px, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} img, .missing {{ width: {_SIDE}px; height: {_SIDE}px; object-fit: contain; }}
.missing {{ border: 1px solid rgb{_MISSING}; box-sizing: border-box; }}
small {{ opacity: .6; }} ul {{ margin: 0; padding-left: 1em; }} li:only-child {{ list-style: none; margin-left: -1em; }}
"""
