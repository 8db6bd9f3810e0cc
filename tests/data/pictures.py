"""Synthetic images of every kind."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

DRAW = np.random.default_rng(0)
# For a target of 32: larger, off by one, exact, upscaled, a single pixel, lines, and a line that a crop shortens most.
SIZES = [(30, 50), (77, 40), (33, 32), (32, 31), (32, 32), (9, 7), (65, 66), (1, 1), (1, 40), (40, 1), (7, 3000)]


def picture(height, width, channels=3, coarse=1):
    pixels = DRAW.integers(0, 256, (-(-height // coarse), -(-width // coarse), channels), dtype=np.uint8)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return image if coarse == 1 else image.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def files(height: int, width: int) -> Iterator[tuple[str, bytes]]:
    """Yields (kind, encoded image) for every kind that the reference libraries convert correctly."""
    rgb, rgba, grey = (picture(height, width, channels, coarse=5) for channels in (3, 4, 1))
    palette, turned = rgb.quantize(64), Image.Exif()
    turned[0x0112] = 6  # rotated by 90 degrees
    yield "JPEG", encoded(rgb, "JPEG")
    yield "grey JPEG", encoded(grey, "JPEG")
    yield "CMYK JPEG", encoded(rgb.convert("CMYK"), "JPEG")
    yield "turned JPEG", encoded(rgb, "JPEG", exif=turned)
    yield "PNG", encoded(rgb)
    yield "RGBA PNG", encoded(rgba)
    yield "LA PNG", encoded(rgba.convert("LA"))
    yield "palette PNG", encoded(palette)
    yield "palette PNG, one colour transparent", encoded(palette, transparency=3)
    yield "palette PNG, every colour with its alpha", encoded(palette, transparency=bytes(range(64)))
    yield "RGB PNG, one colour transparent", encoded(rgb, transparency=(1, 2, 3))
    yield "grey PNG, one level transparent", encoded(grey, transparency=7)
    yield "1-bit PNG", encoded(grey.convert("1"))
    yield "WebP", encoded(rgb, "WEBP")
    yield "RGBA WebP", encoded(rgba, "WEBP")
    yield "GIF", encoded(palette, "GIF")
    yield "GIF, one colour transparent", encoded(palette, "GIF", transparency=5)
