"""Augmentation on the host, while images are decoded: random crop, horizontal flip, AutoAugment.

Chinese-CLIP's augmentation (Yang et al. 2022, appendix; cn_clip's --use-augment) is timm's. With the same random
numbers, the result is equal bit by bit. The random numbers are a function of (seed, stage, global example index), so
that the result does not depend on hosts and workers.

JPEGs are decoded in full size. Pillow's draft mode, which decodes to half or a quarter of the size, is faster but gives
other pixels. So does `resize(box=...)` instead of crop and resize, because it reads pixels outside the box.
"""

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image

from jclip.errors import JclipError
from jclip.images.auto_augment import Operation, draw_operations, operate
from jclip.images.opening import pillow_allows
from jclip.images.preprocess import Picture, Preprocessing, fitted, opened, rgb, to_array
from jclip.ranges import Positive, Range, Share

_TRIES = 10  # of a crop that fits into the image, as in timm and torchvision
_MOST_NUMBERS = 2 * _TRIES + 2 + 1 + 5  # a box at the last try, a flip, and a pair of operations that move pixels


_Area = Annotated[float, Range(0, 1, above=True, words="a share above 0, 1 at most")]


@dataclass(frozen=True)
class HostAugmentation:
    """Augmentation on the host, by default none. Raises JclipError if a range's lower end is above its upper end.

    Attributes:
      crop_scale: smallest and largest area of a random crop, as a share of the image; uniform. The crop is resized to
        the model's size. None: no crop; the preprocessing's own resize.
      crop_ratio: smallest and largest aspect ratio (width / height) of the crop; log-uniform.
      flip: probability of a horizontal flip.
      auto_augment: "original" is AutoAugment's policy for ImageNet, see `auto_augment`.
      interpolation: filter for resizing the crop, and for AutoAugment's rotation and shear.
    """

    crop_scale: tuple[_Area, _Area] | None = None
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    flip: Share = 0.0
    auto_augment: Literal["none", "original"] = "none"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def __post_init__(self) -> None:
        for name, ends in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if ends is not None and ends[0] > ends[1]:
                raise JclipError(f"{name} is {ends[0]} to {ends[1]}: give the lower end first")

    @property
    def changes(self) -> bool:
        """True if images are augmented at all."""
        return self.crop_scale is not None or self.flip > 0 or self.auto_augment != "none"


class Changes(NamedTuple):
    """Augmentation that was drawn for one image.

    Attributes:
      box: crop (left, top, right, bottom) in pixels; None for no crop.
      mirrored: True for a horizontal flip.
      operations: AutoAugment's operations, in order.
    """

    box: tuple[int, int, int, int] | None
    mirrored: bool
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Decoder:
    """Pure function from an encoded image to the model's input, for any thread or process.

    The run's `seed`, the number of the `stage` and the example index decide the augmentation.
    """

    preprocessing: Preprocessing
    augmentation: HostAugmentation = HostAugmentation()
    seed: int = 0
    stage: int = 0

    def __call__(self, picture: Picture, example: int, name: str = "") -> np.ndarray:
        """Returns uint8 (size, size, 3), not yet normalised, of an image as `to_array` takes it.

        `example` is the global example index. Raises JclipError, with `name`, if the image cannot be read.
        """
        if not self.augmentation.changes:
            return to_array(self.preprocessing, picture, name)
        image = opened(self.preprocessing, picture, name)
        changes = draw_changes(self.augmentation, image.size, random_numbers(self.seed, self.stage, example))
        return np.asarray(apply_changes(self.preprocessing, self.augmentation, image, changes, name))


def random_numbers(seed: int, stage: int, example: int) -> Callable[[], float]:
    """Returns a function that gives an example's random numbers, uniform in [0, 1), one per call.

    They come from a hash, because setting up a generator for each image takes several times as long.
    """
    drawn = hashlib.shake_128(f"{seed} {stage} {example}".encode()).digest(8 * _MOST_NUMBERS)
    return ((word >> 11) * 2.0**-53 for word in struct.unpack(f"<{_MOST_NUMBERS}Q", drawn)).__next__


def draw_changes(augmentation: HostAugmentation, size: tuple[int, int], draw: Callable[[], float]) -> Changes:
    """Draws one image's augmentation, consuming random numbers in timm's order. `size` is (width, height)."""
    box = None
    if augmentation.crop_scale is not None:
        box = _draw_box(augmentation.crop_scale, augmentation.crop_ratio, size, draw)
    mirrored = augmentation.flip > 0 and draw() < augmentation.flip
    return Changes(box, mirrored, draw_operations(draw) if augmentation.auto_augment == "original" else ())


def apply_changes(
    preprocessing: Preprocessing, augmentation: HostAugmentation, image: Image.Image, changes: Changes, name: str = ""
) -> Image.Image:
    """Applies an augmentation in cn_clip's order: crop, flip, RGB, AutoAugment. Returns RGB of (size, size).

    Rotation and shear fill uncovered pixels with the preprocessing's mean. `image` may have any mode. Without a crop,
    raises JclipError as `fitted` does.
    """
    size, resample = preprocessing.size, Image.Resampling[augmentation.interpolation.upper()]
    if changes.box is None:
        image = fitted(preprocessing, image, name)
    else:
        with pillow_allows(image.width * image.height / 10**6):
            image = image.crop(changes.box)
        image = image.resize((size, size), resample)
    if changes.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = rgb(image)
    red, green, blue = (min(255, round(255 * mean)) for mean in preprocessing.mean)
    for operation in changes.operations:
        image = operate(image, operation, (red, green, blue), resample)
    return image


def _draw_box(
    scale: tuple[float, float], ratio: tuple[float, float], size: tuple[int, int], draw: Callable[[], float]
) -> tuple[int, int, int, int]:
    """Draws a crop box within the ranges of area and aspect ratio.

    If ten draws do not fit, returns the largest centred box within the range of aspect ratios.
    """
    width, height = size
    least, most = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area = (scale[0] + (scale[1] - scale[0]) * draw()) * (width * height)
        across = math.exp(least + (most - least) * draw())
        # At least one pixel: timm fails on a tiny share of a small image.
        wide, high = max(1, round(math.sqrt(area * across))), max(1, round(math.sqrt(area / across)))
        if wide <= width and high <= height:
            top, left = int((height - high + 1) * draw()), int((width - wide + 1) * draw())
            return left, top, left + wide, top + high
    wide, high = width, height
    if width / height < ratio[0]:
        high = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        wide = max(1, round(height * ratio[1]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high
