"""AutoAugment's ImageNet policy (Cubuk et al. 2019): timm's "original", which Chinese-CLIP's code uses.

One of 25 pairs of operations is drawn, and each of the two is applied with its own probability. With the same random
numbers, the result equals timm's bit by bit.
"""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, int, int]


class Operation(NamedTuple):
    """Operation on an image.

    Attributes:
      name: a key of `IN_PLACE` or `MOVING`.
      value: "rotate": degrees, counter-clockwise. "shear_x": shift of the sampled position to the right for each row
        down, in pixels. "posterize": bits to keep, 4 to 8. "solarize": the level from which values are inverted, 0 to
        256. "color", "contrast", "sharpness": factor, 1 for no change. 0 for the others.
    """

    name: str
    value: float


Chance = tuple[str, float, int]
"""(operation, its probability, its level of 0 to 10)"""

POLICY: tuple[tuple[Chance, Chance], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)
"""The 25 pairs. The last five repeat earlier ones, so these five are drawn twice as often as the rest."""

IN_PLACE: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, level: ImageOps.solarize(image, int(level)),
    "invert": lambda image, _: ImageOps.invert(image),
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
"""Operations that keep every pixel in its place: (image, value) -> image."""


def _rotate(image: Image.Image, degrees: float, fill: Colour, resample: Image.Resampling) -> Image.Image:
    return image.rotate(degrees, resample=resample, fillcolor=fill)


def _shear_x(image: Image.Image, slope: float, fill: Colour, resample: Image.Resampling) -> Image.Image:
    matrix = (1, slope, 0, 0, 1, 0)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill)


MOVING: dict[str, Callable[[Image.Image, float, Colour, Image.Resampling], Image.Image]] = {
    "rotate": _rotate,
    "shear_x": _shear_x,
}
"""Operations that move pixels: (image, value, fill colour, interpolation) -> image."""


def at_level(name: str, level: float) -> Operation:
    """Returns an operation at a level of 0 to 10. Rotation and shear are positive; `draw_operations` draws the sign."""
    share = level / 10
    values: dict[str, float] = {
        "rotate": share * 30,
        "shear_x": share * 0.3,
        "posterize": int(share * 4) + 4,
        "solarize": int(share * 256),
        **dict.fromkeys(("color", "contrast", "sharpness"), share * 1.8 + 0.1),
    }
    return Operation(name, values.get(name, 0))


_CHANCES = [[(probability, at_level(name, level)) for name, probability, level in pair] for pair in POLICY]


def draw_operations(draw: Callable[[], float]) -> tuple[Operation, ...]:
    """Draws the operations for one image: none, one or two. `draw` returns uniform numbers in [0, 1)."""
    found = []
    for probability, operation in _CHANCES[int(len(_CHANCES) * draw())]:
        # Like timm, consumes no random number if the probability is 1, so that the two give equal results.
        if probability < 1 and draw() > probability:
            continue
        if operation.name in MOVING and draw() > 0.5:
            operation = operation._replace(value=-operation.value)
        found.append(operation)
    return tuple(found)


def operate(image: Image.Image, operation: Operation, fill: Colour, resample: Image.Resampling) -> Image.Image:
    """Returns the image after an operation. `image` is RGB, and is not modified.

    Operations that move pixels interpolate with `resample`, and fill uncovered pixels with `fill`.
    """
    name, value = operation
    return MOVING[name](image, value, fill, resample) if name in MOVING else IN_PLACE[name](image, value)
