"""Checks encoded images the way training reads them, and re-encodes them upright on request."""

import io
import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from jclip.errors import JclipError
from jclip.images.opening import (
    MEGAPIXELS_VARIABLE,
    PictureError,
    load,
    max_megapixels,
    open_header,
    orientation_of,
    turned,
)
from jclip.images.preprocess import Orientation, Preprocessing, fitted, open_picture, rgb

ONE_COLOUR = "the image is nearly one colour after conversion"
BEYOND = "the image is larger than training and encoding read by default"

_CONVERSION = Preprocessing()
_STEPS = 8  # of 255: a smaller range in each channel counts as one colour; 10 bits in a 16-bit file have a range of 4
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True)
class PictureRules:
    """Rules for the images of a source.

    Attributes:
      megapixels: maximum size of an image in millions of pixels; None for `opening.max_megapixels()`.
      orientation: "apply" re-encodes an image with an EXIF orientation upright and losslessly, as PNG, or as TIFF if
        PNG lacks the mode. "ignore" keeps its bytes. All other images keep their bytes.
    """

    megapixels: float | None = None
    orientation: Orientation = "ignore"


class Checked(NamedTuple):
    """Result of a check.

    Attributes:
      trouble: reason to skip the image; empty to keep it.
      remark: oddity of an image that is kept; empty if there is none.
      why: details of either.
    """

    trouble: str = ""
    remark: str = ""
    why: str = ""


def check_picture(data: bytes, rules: PictureRules) -> Checked:
    """Converts an image as training does, and returns what is wrong or odd."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about odd metadata, possibly millions
            image = open_picture(data, "", megapixels=rules.megapixels)
            mode = image.mode
            pixels_hwc = np.asarray(rgb(fitted(_CONVERSION, image, "")))
    except PictureError as error:
        return Checked(error.kind, why=error.why)
    millions = image.width * image.height / 10**6
    if rules.megapixels is not None and millions > max_megapixels():
        why = f"{millions:.4g} megapixels; set {MEGAPIXELS_VARIABLE}={math.ceil(millions)} to read it"
        return Checked(remark=BEYOND, why=why)
    if (np.ptp(pixels_hwc, axis=(0, 1)) < _STEPS).all():
        colour = "#" + "".join(f"{value:02x}" for value in np.median(pixels_hwc, axis=(0, 1)).astype(int))
        return Checked(remark=ONE_COLOUR, why=f"{colour}; its mode is {mode}")
    return Checked()


def stored_form(data: bytes, rules: PictureRules) -> bytes:
    """Returns the bytes to store for an image: unchanged, or upright if the rules ask for it.

    An image that cannot be opened keeps its bytes; `check_picture` gives the reason.
    """
    if rules.orientation == "ignore":
        return data
    try:
        with warnings.catch_warnings(action="ignore"):
            image = open_header(data, "", rules.megapixels)
            if orientation_of(image, data) == 1:
                return data
            load(image, "", rules.megapixels)
            return _encoded(turned(image, orientation_of(image)))
    except JclipError:
        return data


def _encoded(image: Image.Image) -> bytes:
    """Encodes pixels, palette, transparency and colour profile; omits EXIF, which would rotate the image again."""
    stream = io.BytesIO()
    kept = {name: image.info[name] for name in ("transparency", "icc_profile") if name in image.info}
    image.info = {}
    form = {"format": "PNG"} if image.mode in _PNG_MODES else {"format": "TIFF", "compression": "tiff_deflate"}
    image.save(stream, **form, **kept)
    return stream.getvalue()
