"""Augmentation of training pictures on the host, where they are decoded: crop, mirror image, AutoAugment.

Chinese-CLIP's (Yang et al. 2022, appendix; the code's --use-augment) is timm's: on the same draw the same picture to
the bit. What is drawn is a function of (seed, stage, global example index) alone, so that hosts and workers may be any.

JPEGs are decoded whole. Pillow's draft mode, which decodes a half or a quarter of the size for a fraction of the time,
filters otherwise than a decoder and a resize do, and is nowhere equal to them; nor is `resize(box=...)` to a crop that
is resized, for it takes pixels beyond the box in.
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

_TRIES = 10  # of a crop that does not fit into the picture, as in timm and torchvision
_MOST_NUMBERS = 2 * _TRIES + 2 + 1 + 5  # a box that fits at last, a mirror image, and a pair of operations that move


_Area = Annotated[float, Range(0, 1, above=True, words="a share above 0, 1 at most")]


@dataclass(frozen=True)
class HostAugmentation:
    """How pictures are changed while they are decoded; by default not at all.

    Attributes:
      crop_scale: least and largest share of a picture's area that is cut out and resized to the model's size, whatever
        its shape; uniformly drawn. None: no crop, but the preprocessing's own way of resizing.
      crop_ratio: least and largest width over height of what is cut out; its logarithm is uniformly drawn.
      flip: probability of a left-right mirror image.
      auto_augment: "original" is AutoAugment's policy for ImageNet, see `auto_augment`.
      interpolation: of the crop's resize, and of what AutoAugment turns and shears.

    Raises:
      JclipError: a range whose first end is above its second.
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
        """Whether anything is done at all."""
        return self.crop_scale is not None or self.flip > 0 or self.auto_augment != "none"


class Changes(NamedTuple):
    """What happens to one picture.

    Attributes:
      box: (left, top, right, bottom) of what is cut out, in pixels; None for no crop.
      mirrored: left and right change places.
      operations: of AutoAugment, in order.
    """

    box: tuple[int, int, int, int] | None
    mirrored: bool
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Decoder:
    """From the bytes of a picture to what the model takes: a pure function, for any thread or process to call.

    Attributes:
      preprocessing: size, background, way of resizing.
      augmentation: what is done to pictures.
      seed, stage: of the run, and the stage's number: with the example's index they decide what is drawn.
    """

    preprocessing: Preprocessing
    augmentation: HostAugmentation = HostAugmentation()
    seed: int = 0
    stage: int = 0

    def __call__(self, picture: Picture, example: int, name: str = "") -> np.ndarray:
        """uint8 (size, size, 3), not yet normalised.

        Args:
          picture: encoded bytes, a path, an image or uint8 (h, w, 3).
          example: the global index.
          name: what to call the picture in an error.

        Raises:
          JclipError: it cannot be read; the message names it.
        """
        if not self.augmentation.changes:
            return to_array(self.preprocessing, picture, name)
        image = opened(self.preprocessing, picture, name)
        changes = draw_changes(self.augmentation, image.size, numbers(self.seed, self.stage, example))
        return np.asarray(change(self.preprocessing, self.augmentation, image, changes, name))


def numbers(seed: int, stage: int, example: int) -> Callable[[], float]:
    """The random numbers that decide what happens to an example's picture, one a call, uniform in [0, 1).

    They are a hash's output, for setting up a generator takes several times as long, and this is done for each picture.
    """
    drawn = hashlib.shake_128(f"{seed} {stage} {example}".encode()).digest(8 * _MOST_NUMBERS)
    return ((word >> 11) * 2.0**-53 for word in struct.unpack(f"<{_MOST_NUMBERS}Q", drawn)).__next__


def draw_changes(augmentation: HostAugmentation, size: tuple[int, int], draw: Callable[[], float]) -> Changes:
    """What happens to a picture of (width, height); from `draw` the same is asked, in the same order, as timm asks."""
    box = None
    if augmentation.crop_scale is not None:
        box = _draw_box(augmentation.crop_scale, augmentation.crop_ratio, size, draw)
    mirrored = augmentation.flip > 0 and draw() < augmentation.flip
    return Changes(box, mirrored, draw_operations(draw) if augmentation.auto_augment == "original" else ())


def change(
    preprocessing: Preprocessing, augmentation: HostAugmentation, image: Image.Image, changes: Changes, name: str = ""
) -> Image.Image:
    """The picture, changed, in RGB and (size, size): crop, mirror image, RGB, AutoAugment, as in Chinese-CLIP's code.

    Args:
      preprocessing: the size; the mean is the colour beyond the edges of a picture that AutoAugment turns.
      augmentation: the interpolation.
      image: in any mode.
      changes: what is done.
      name: what to call it in an error.

    Raises:
      JclipError: what `fitted` raises, without a crop.
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
    """A box of a share of the picture's area, somewhere in it, that does not respect the picture's own shape.

    If ten do not fit, it is the middle of the picture, as much of it as its shape allows.
    """
    width, height = size
    least, most = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area = (scale[0] + (scale[1] - scale[0]) * draw()) * (width * height)
        across = math.exp(least + (most - least) * draw())
        # A share of next to nothing of a small picture would be no pixel at all, on which timm fails.
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
