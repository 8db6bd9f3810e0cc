"""Preprocessing as data: decode, resize, and (in the graph) normalise. It travels with the weights in a bundle.

Axes: b batch, h height, w width, c channels.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, UnidentifiedImageError

from jclip.errors import JclipError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Picture = Image.Image | np.ndarray | str | Path | bytes


@dataclass(frozen=True)
class Preprocessing:
    """From any picture to what the image tower takes.

    Attributes:
      size: height and width in pixels.
      mean, std: by channel, of values in 0..1.
      resize: "squash" ignores the aspect ratio (Chinese-CLIP); "crop" scales the shorter side, then crops the centre
        (CLIP, AltCLIP). Bicubic as Pillow does it, which is what torchvision calls.
      background: RGB under transparent pixels.
      trim: cut transparent borders away first, and centre what is left in a square.
    """

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    resize: Literal["squash", "crop"] = "squash"
    background: tuple[int, int, int] = (255, 255, 255)
    trim: bool = False


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
    image = _open(picture, name)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if preprocessing.trim:
            image = _trimmed(image)
        under = Image.new("RGBA", image.size, preprocessing.background)
        image = Image.alpha_composite(under, image)
    image = image.convert("RGB")
    if preprocessing.resize == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def normalise(preprocessing: Preprocessing, images_bhwc: jax.Array) -> jax.Array:
    """float32 (b, h, w, 3) from values in 0..255, of any dtype."""
    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    return (images_bhwc.astype(jnp.float32) / 255 - mean) / std


def _open(picture: Picture, name: str) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            what = name or "a picture"
            raise JclipError(f"{what} is {picture.dtype} {picture.shape}, but must be uint8 (height, width, 3)")
        return Image.fromarray(picture)
    name = name or (str(picture) if isinstance(picture, str | Path) else f"a picture of {len(picture)} bytes")
    try:
        image = Image.open(io.BytesIO(picture if isinstance(picture, bytes) else Path(picture).read_bytes()))
        image.load()
    except FileNotFoundError:
        raise JclipError(f"there is no picture {name}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
        raise JclipError(f"{name} cannot be read as a picture ({reason})") from None
    return image


def _trimmed(image: Image.Image) -> Image.Image:
    box = image.getchannel("A").getbbox()
    if box is None:
        return image
    drawn = image.crop(box)
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square
