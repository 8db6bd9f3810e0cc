"""Converts every Pillow mode to one that can be resized and then converted to RGB.

    mode                     becomes   method
    1, L, P, RGB, RGBX, CMYK, YCbCr, LA, PA, RGBA
                             the same  as in the references, which resize first and convert to RGB afterwards
    I;16 (also B, L, N)      L         scales its range: 0..65535, or 0..4095 for a 12-bit TIFF, to 0..255
    I (32-bit integers)      L         scales 0..65535 if all values are in it, otherwise the image's own range
    F (32-bit floats)        L         scales 0..1 if all values are in it, otherwise the image's own range
    LAB, HSV                 RGB       Pillow's conversion, before resizing, because hue, a* and b* cannot be averaged
    La, RGBa                 LA, RGBA  divides by alpha

Pillow's own `convert("RGB")` clips the deep modes: 16-bit grey becomes white, floats in 0..1 become black.

Floats with NaN or infinity, images without pixels, and any other mode are errors.
"""

import numpy as np
from PIL import Image

from jclip.images.opening import UNCONVERTIBLE, unreadable_picture

_AS_THEY_ARE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA")
_CONVERTED = {"LAB": "RGB", "HSV": "RGB", "La": "LA", "RGBa": "RGBA"}
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_SIXTEEN_BITS = 65535
_AT_ONCE = 1 << 20  # values
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def to_convertible(image: Image.Image, name: str) -> Image.Image:
    """Returns a decoded image in a mode that can be resized and converted to RGB; unchanged if it has such a mode.

    Raises PictureError if the image has no pixels, a value that is not finite, or an unknown mode.
    """
    if not (image.width and image.height):
        raise unreadable_picture(name, UNCONVERTIBLE, f"it has no pixels: {image.width} x {image.height}")
    if image.mode in _AS_THEY_ARE:
        return image
    if image.mode in _CONVERTED:
        return image.convert(_CONVERTED[image.mode])
    if image.mode in _DEEP:
        return _grey(image, name)
    raise unreadable_picture(name, UNCONVERTIBLE, f"its mode is {image.mode}")


def _grey(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and _first(tags.get(_SAMPLE_FORMAT, _UNSIGNED)) == _UNSIGNED and tags.get(_BITS) == (32,):
        values = values.view(np.uint32)  # Pillow has no such mode and wraps the values around
    if image.mode == "F" and not np.isfinite(values).all():
        raise unreadable_picture(name, UNCONVERTIBLE, "it holds values that are not finite")
    low, high = _range(image.mode, values, _first(tags.get(_BITS, 16)))
    grey = _scaled(values, low, high)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts only up to 8 bits
        grey = 255 - grey
    result = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        result.info["transparency"] = int(_scaled(np.array([transparent]), low, high)[0])
    return result


def _range(mode: str, values: np.ndarray, bits: int) -> tuple[float, float]:
    """Returns the values that become 0 and 255."""
    if mode.startswith("I;16"):
        return 0, 2**bits - 1
    low, high = float(values.min()), float(values.max())
    most = 1.0 if mode == "F" else float(_SIXTEEN_BITS)
    return (0.0, most) if low >= 0 and high <= most else (low, high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns values scaled to uint8, rounded to nearest."""
    result = np.empty(values.shape, np.uint8)
    flat, scaled = values.reshape(-1), result.reshape(-1)
    factor = 255 / (high - low) if high > low else 0.0
    for start in range(0, flat.size, _AT_ONCE):  # float64 of a large image would take too much memory at once
        some = (flat[start : start + _AT_ONCE].astype(np.float64) - low) * factor
        scaled[start : start + _AT_ONCE] = np.rint(some).clip(0, 255)
    return result


def _first(value: int | tuple[int, ...]) -> int:
    return value[0] if isinstance(value, tuple) else value
