"""Preprocessing as data: decode, resize, and (in the graph) normalise. It travels with the weights in a bundle.

Axes: b batch, h height, w width, c channels.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, UnidentifiedImageError

from jclip.errors import JclipError
from jclip.ranges import Range, Size, check_ranges

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_MOST_PIXELS = 2**28  # a gigabyte; Pillow itself opens pictures of up to two thirds of that

Picture = Image.Image | np.ndarray | str | Path | bytes

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff", "tif", "ppm", "pgm")
"""Endings of pictures' files, the usual ones first: those of torchvision's ImageFolder, and GIF."""


@dataclass(frozen=True)
class Preprocessing:
    """From any picture to what the image tower takes.

    By default exactly as the references do it, to the last bit of uint8: cn_clip's `image_transform` ("squash") and
    open_clip's, which is OpenAI's ("crop"). Both resize a picture in its own mode and only then convert it to RGB; so a
    palette is resized to the nearest pixel, alpha is dropped, and EXIF does not turn the picture.

    The processors of transformers (measured: 5.24) convert to RGB first, alpha over white, and then resize tensors: RGB
    pictures differ by up to 4 of 255 steps, pure noise by up to 21, with `backend="pil"` by none. Their crop stands one
    pixel to the left or above where the border to cut has 4k + 3 pixels.

    Attributes:
      size: height and width in pixels.
      mean, std: by channel, of values in 0..1.
      resize: "squash" ignores the aspect ratio (Chinese-CLIP); "crop" scales the shorter side, then crops the centre
        (CLIP, AltCLIP). Bicubic as Pillow does it, which is what torchvision calls.
      background: RGB under transparent pixels, laid there before resizing; None as the references: no such thing.
      trim: cut transparent borders away first, and centre what is left in a square; needs a background.

    Raises:
      JclipError: a number out of its range, or `trim` without a background.
    """

    size: Size = 224
    mean: Annotated[tuple[float, float, float], Range(-1e4, 1e4)] = CLIP_MEAN
    std: Annotated[tuple[float, float, float], Range(1e-6, 1e6)] = CLIP_STD
    resize: Literal["squash", "crop"] = "squash"
    background: Annotated[tuple[int, int, int], Range(0, 255)] | None = None
    trim: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise JclipError(f"{name} is {getattr(self, name)!r}, but must be three numbers, one a channel")
        if self.trim and self.background is None:
            raise JclipError("preprocessing with trim needs a background: give it one, white is (255, 255, 255)")


def to_array(preprocessing: Preprocessing, picture: Picture, name: str = "") -> np.ndarray:
    """uint8 (size, size, 3), not yet normalised: a quarter of the memory and of the way to the device.

    Args:
      preprocessing: size, way of resizing, background.
      picture: a PIL image, a path, encoded bytes, or uint8 (h, w, 3).
      name: what to call it in an error, when it is no path.

    Raises:
      JclipError: it cannot be read; the message names it.
    """
    size = preprocessing.size
    if isinstance(picture, np.ndarray) and picture.shape == (size, size, 3) and picture.dtype == np.uint8:
        return picture
    name = name or _called(picture)
    return np.asarray(rgb(fitted(preprocessing, opened(preprocessing, picture, name), name)))


def opened(preprocessing: Preprocessing, picture: Picture, name: str = "") -> Image.Image:
    """The picture decoded, over the background if there is one; else in its own mode.

    Raises:
      JclipError: it cannot be read; the message names it.
    """
    image = open_picture(picture, name or _called(picture))
    if preprocessing.background is not None:
        image = _flattened(image, preprocessing.background, preprocessing.trim)
    return image


def fitted(preprocessing: Preprocessing, image: Image.Image, name: str) -> Image.Image:
    """The picture resized to (size, size), in its own mode.

    Raises:
      JclipError: it is too long to be cropped; the message names it.
    """
    size = preprocessing.size
    return _squashed(image, size) if preprocessing.resize == "squash" else _cropped(image, size, name)


def rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, alpha dropped; itself where it is in RGB."""
    # What is left to know of transparency would only make Pillow warn that RGB cannot hold it.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def normalise(preprocessing: Preprocessing, images_bhwc: jax.Array) -> jax.Array:
    """float32 (b, h, w, 3) from values in 0..255, of any dtype."""
    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    return (images_bhwc.astype(jnp.float32) / 255 - mean) / std


def _called(picture: Picture) -> str:
    if isinstance(picture, bytes):
        return f"a picture of {len(picture)} bytes"
    return str(picture) if isinstance(picture, str | Path) else "a picture"


def open_picture(picture: Picture, name: str) -> Image.Image:
    """The picture decoded, in its own mode and size.

    Args:
      picture: as `to_array` takes it.
      name: what to call it in an error.

    Raises:
      JclipError: it cannot be read; the message names it.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise JclipError(f"{name} is {picture.dtype} {picture.shape}, but must be uint8 (height, width, 3)")
        return Image.fromarray(picture)
    try:
        if not isinstance(picture, Image.Image):
            picture = Image.open(io.BytesIO(picture if isinstance(picture, bytes) else Path(picture).read_bytes()))
        picture.load()
    except FileNotFoundError:
        raise JclipError(f"there is no picture {name}") from None
    except Exception as error:  # Pillow's decoders raise whatever they stumble over: struct.error, IndexError, …
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
        raise JclipError(f"{name} cannot be read as a picture ({reason})") from None
    return picture


def _flattened(image: Image.Image, background: tuple[int, int, int], trim: bool) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if trim:
            image = _trimmed(image)
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def _squashed(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, size: int, name: str) -> Image.Image:
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    if width * height > _MOST_PIXELS:
        sides = f"{image.width} x {image.height} pixels"
        raise JclipError(f"{name} is {sides}, too long to scale its shorter side to {size}: cut it")
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def _trimmed(image: Image.Image) -> Image.Image:
    box = image.getchannel("A").getbbox()
    if box is None:
        return image
    drawn = image.crop(box)
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square
