"""Checks the pictures of a source as training will see them, and turns them upright if that is asked for."""

import io
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from jclip.data.images import Orientation, Preprocessing, open_picture, to_array
from jclip.data.opening import PictureError, max_megapixels, open_header, orientation_of
from jclip.data.records import Labelled, Pair
from jclip.errors import JclipError

ONE_COLOUR = "the picture comes out in one colour"

_CONVERSION = Preprocessing(size=224)
_PNG_MODES = ("1", "L", "P", "LA", "RGB", "RGBA")


@dataclass(frozen=True)
class PictureRules:
    """Rules for the pictures of a source.

    Attributes:
      megapixels: the most that is decoded; None for `max_megapixels()`.
      orientation: "apply" replaces a picture whose EXIF says how the camera was held by its upright form, without loss,
        as a PNG or TIFF; "ignore" keeps its bytes. All other pictures keep theirs.
    """

    megapixels: float | None = None
    orientation: Orientation = "ignore"


class Checked(NamedTuple):
    """What a check found: a kind of trouble or "", the reason in detail, and a remark on a picture that is kept."""

    trouble: str = ""
    why: str = ""
    remark: str = ""
