"""Preprocessing: decode, resize and, on the device, normalise. Its settings are stored with the weights in a bundle.

Axes: b batch, h height, w width, c channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from PIL import Image

from jclip.errors import JclipError
from jclip.images import opening
from jclip.images.modes import to_convertible
from jclip.images.opening import is_picture_name as is_picture_name
from jclip.images.opening import picture_endings as picture_endings
from jclip.ranges import Range, Size, check_ranges

if TYPE_CHECKING:
    import jax

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_MOST_PIXELS = 2**28  # of an intermediate image: a gigabyte

Picture = Image.Image | np.ndarray | str | Path | bytes

Orientation = Literal["ignore", "apply"]


@dataclass(frozen=True)
class Preprocessing:
    """Settings that turn any image into the image tower's input.

    The defaults equal the references, bit by bit in uint8: cn_clip's `image_transform` ("squash") and open_clip's,
    which is OpenAI's ("crop"). Both resize an image in its own mode and then convert it to RGB. So palettes are
    resized by nearest neighbour, alpha is dropped, and EXIF orientation is ignored. Modes that the references clip to
    white or black, 16-bit grey and floats, are scaled to 8 bits first, see `jclip.images.modes`.

    The processors of transformers (measured: 5.24) convert to RGB first, alpha over white, and then resize tensors. RGB
    photographs differ by up to 4 of 255 steps, noise by up to 21; with `backend="pil"` they are equal. Their crop is
    one pixel further left or up if the border to cut has 4k + 3 pixels. Raises JclipError if a number is out of range,
    or `trim` has no background.

    Attributes:
      size: height and width in pixels.
      mean: mean of each channel, for values in 0..1.
      std: standard deviation of each channel, for values in 0..1.
      resize: "squash" ignores the aspect ratio (Chinese-CLIP); "crop" scales the shorter side, then crops the centre
        (CLIP, AltCLIP). Bicubic by Pillow, as in torchvision.
      background: RGB colour put under transparent pixels before resizing; None drops alpha, as the references do.
      trim: crop transparent borders first, and centre the rest in a square; needs a background.
      orientation: "apply" rotates an image by its EXIF orientation; "ignore" keeps it as stored, as the references do.
        TIFF and HEIC are always upright, because their decoders rotate them.
    """

    size: Size = 224
    mean: Annotated[tuple[float, float, float], Range(-1e4, 1e4)] = CLIP_MEAN
    std: Annotated[tuple[float, float, float], Range(1e-6, 1e6)] = CLIP_STD
    resize: Literal["squash", "crop"] = "squash"
    background: Annotated[tuple[int, int, int], Range(0, 255)] | None = None
    trim: bool = False
    orientation: Orientation = "ignore"

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise JclipError(f"{name} is {getattr(self, name)!r}, but must be three numbers, one per channel")
        if self.trim and self.background is None:
            raise JclipError("preprocessing with trim needs a background: give one, such as (255, 255, 255) for white")


def to_array(preprocessing: Preprocessing, picture: Picture, name: str = "") -> np.ndarray:
    """Returns an image as uint8 (size, size, 3). It is normalised on the device, so that fewer bytes are moved there.

    `picture` is a PIL image, a path, encoded bytes, or uint8 (h, w, 3). Messages call it `name`, by default its path.
    Raises JclipError, with the name, if it cannot be read.
    """
    size = preprocessing.size
    if isinstance(picture, np.ndarray) and picture.shape == (size, size, 3) and picture.dtype == np.uint8:
        return picture
    name = name or _called(picture)
    return np.asarray(rgb(fitted(preprocessing, opened(preprocessing, picture, name), name)))


def opened(preprocessing: Preprocessing, picture: Picture, name: str = "") -> Image.Image:
    """Returns the image decoded: over the background, in RGB, if there is one; else in its own mode.

    Raises JclipError, with the name, if it cannot be read.
    """
    name = name or _called(picture)
    image = open_picture(picture, name, preprocessing.orientation)
    if preprocessing.background is not None:
        image = flattened(image, preprocessing.background, preprocessing.trim, name)
    return image


def fitted(preprocessing: Preprocessing, image: Image.Image, name: str) -> Image.Image:
    """Returns the image resized to (size, size), in its own mode. Raises JclipError if it is too long to crop."""
    size = preprocessing.size
    if preprocessing.resize == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    if width * height > _MOST_PIXELS:
        raise _too_long(image, name, f"scale its shorter side to {size}")
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def rgb(image: Image.Image) -> Image.Image:
    """Returns the image in RGB, with alpha dropped; unchanged if it is in RGB."""
    # With it, Pillow warns that RGB cannot hold transparency.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def normalise(preprocessing: Preprocessing, images_bhwc: "jax.Array") -> "jax.Array":
    """Returns normalised float32 (b, h, w, 3) of values in 0..255, of any dtype."""
    import jax.numpy as jnp  # here, so that processes that only read images start without jax

    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    return (images_bhwc.astype(jnp.float32) / 255 - mean) / std


def _called(picture: Picture) -> str:
    if isinstance(picture, bytes):
        return f"an image of {len(picture)} bytes"
    return str(picture) or "an empty path" if isinstance(picture, str | Path) else "an image"


def open_picture(
    picture: Picture, name: str, orientation: Orientation = "ignore", megapixels: float | None = None
) -> Image.Image:
    """Returns the image decoded, in its own size, in a mode that `modes.to_convertible` keeps.

    `picture` is as in `to_array`, `orientation` as in `Preprocessing`. `megapixels` is the maximum size, in millions of
    pixels; by default `opening.max_megapixels()`. Raises JclipError, with the name, if it cannot be read.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise JclipError(f"{name} is {picture.dtype} {picture.shape}, but must be uint8 (height, width, 3)")
        if not picture.size:
            raise JclipError(f"{name} has no pixels, but shape {picture.shape}: leave it out")
        return Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        image = picture
    elif isinstance(picture, bytes | str | Path):
        data = picture if isinstance(picture, bytes) else opening.read_picture(picture, name)
        image = opening.open_header(data, name, megapixels)
    else:
        kind = "None" if picture is None else f"of type {type(picture).__name__}"
        wanted = "a PIL image, a path, encoded bytes, or a uint8 array (height, width, 3)"
        raise JclipError(f"{name} is {kind}, but must be {wanted}")
    opening.load(image, name, megapixels)
    result = to_convertible(image, name)
    return opening.turned(result, opening.orientation_of(image)) if orientation == "apply" else result


def flattened(
    image: Image.Image, background: tuple[int, int, int], trim: bool = False, name: str = "the image"
) -> Image.Image:
    """Returns the image in RGB, over the background if it is transparent; `trim` is as in `Preprocessing`."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if trim:
            image = _trimmed(image, name)
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def _trimmed(image: Image.Image, name: str) -> Image.Image:
    box = image.getchannel("A").getbbox()
    if box is None:
        return image
    side = max(box[2] - box[0], box[3] - box[1])
    if side * side > _MOST_PIXELS:
        raise _too_long(image, name, "centre it in a square")
    with opening.pillow_allows(image.width * image.height / 10**6):
        drawn = image.crop(box)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square


def _too_long(image: Image.Image, name: str, purpose: str) -> opening.PictureError:
    why = f"{image.width} x {image.height} pixels, too long to {purpose}"
    return opening.PictureError(f"{name} is {why}: cut it", opening.TOO_LARGE, why)
