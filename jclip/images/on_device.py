"""Augmentation on the device, inside the compiled step: a function of the key and the global example index.

Each example has its own key, so that its augmentation does not depend on its batch or device.

Axes: b batch, h height, w width, c channels.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jclip.ranges import NotNegative, Share

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)  # NTSC, 1953
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision's saturation


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation on the device. A setting x draws uniformly from -x..x; 0 switches it off.

    Attributes:
      scale: log of the size: 0.2 makes images 0.82 to 1.22 times as large.
      aspect: log of the width, opposite for the height: 0.1 makes them up to 1.11 times as wide and 0.9 as high.
      translate: shift along each axis, as a fraction of the side.
      rotate: angle in degrees.
      shear: tangent of the angle.
      flip: probability of a horizontal flip.
      brightness: change of the factor on all channels: 0.4 gives factors of 0.6 to 1.4.
      contrast: change of the factor on the distance from the mean grey.
      saturation: change of the factor on the distance from the pixel's grey.
      hue: degrees on the colour circle (a rotation of the plane of equal luma).
      gamma: log of the exponent on values in 0..1.
      channel_mix: share of each channel that may come from the others.
      outside: colour outside the image's edges; "edge" repeats the border.
    """

    scale: NotNegative = 0.0
    aspect: NotNegative = 0.0
    translate: NotNegative = 0.0
    rotate: NotNegative = 0.0
    shear: NotNegative = 0.0
    flip: Share = 0.0
    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: NotNegative = 0.0
    gamma: NotNegative = 0.0
    channel_mix: NotNegative = 0.0
    outside: Literal["edge", "white", "black"] = "edge"

    @property
    def moves(self) -> bool:
        """True if pixels change place."""
        return bool(self.scale or self.aspect or self.translate or self.rotate or self.shear or self.flip)

    @property
    def colours(self) -> bool:
        """True if pixels change colour."""
        return bool(self.brightness or self.contrast or self.saturation or self.hue or self.gamma or self.channel_mix)


def augment(augmentation: Augmentation, images_bhwc: jax.Array, key: jax.Array, example_b: jax.Array) -> jax.Array:
    """Augments each image with its own random numbers; returns float32 (b, h, w, c) in 0..255.

    Args:
      images_bhwc: values in 0..255, any dtype.
      key: key of the step or of the run.
      example_b: global example indices, int32.
    """
    images_bhwc = images_bhwc.astype(jnp.float32)
    if not (augmentation.moves or augmentation.colours):
        return images_bhwc
    keys_b = jax.vmap(lambda example: jax.random.fold_in(key, example))(example_b)
    draws_bk = jax.vmap(lambda each: jax.random.uniform(each, (18,), minval=-1.0))(keys_b)

    def change(image_hwc: jax.Array, draws_k: jax.Array) -> jax.Array:
        if augmentation.moves:
            image_hwc = _moved(augmentation, image_hwc, draws_k[:7])
        if augmentation.colours:
            image_hwc = _coloured(augmentation, image_hwc, draws_k[7:])
        return image_hwc

    return jax.vmap(change)(images_bhwc, draws_bk)


def _moved(a: Augmentation, image_hwc: jax.Array, draws: jax.Array) -> jax.Array:
    """Samples the image at an affine map of the output's pixel centres, about the image's centre."""
    height, width, channels = image_hwc.shape
    size = jnp.exp(a.scale * draws[0])
    angle = jnp.deg2rad(a.rotate) * draws[1]
    cos, sin, shear = jnp.cos(angle) / size, jnp.sin(angle) / size, a.shear * draws[2]
    mirror = jnp.where((draws[3] + 1) / 2 < a.flip, -1.0, 1.0)
    y_h = jnp.arange(height) - (height - 1) / 2
    x_w = jnp.arange(width) - (width - 1) / 2
    stretch = jnp.exp(a.aspect * draws[6])
    y_h, x_w = y_h * stretch, x_w / stretch
    y_hw, x_hw = jnp.meshgrid(y_h, x_w * mirror, indexing="ij")
    x_hw = x_hw + shear * y_hw
    from_y_hw = cos * y_hw + sin * x_hw + (height - 1) / 2 - a.translate * height * draws[4]
    from_x_hw = cos * x_hw - sin * y_hw + (width - 1) / 2 - a.translate * width * draws[5]
    if a.outside == "edge":
        from_y_hw, from_x_hw = jnp.clip(from_y_hw, 0, height - 1), jnp.clip(from_x_hw, 0, width - 1)
    else:
        # One pixel of margin in the outside colour; positions further out are clipped to it.
        margin = [(1, 1), (1, 1), (0, 0)]
        image_hwc = jnp.pad(image_hwc, margin, constant_values=255.0 if a.outside == "white" else 0.0)
        height, width = height + 2, width + 2
        from_y_hw, from_x_hw = jnp.clip(from_y_hw + 1, 0, height - 1), jnp.clip(from_x_hw + 1, 0, width - 1)
    top_hw = jnp.clip(jnp.floor(from_y_hw), 0, height - 2)
    left_hw = jnp.clip(jnp.floor(from_x_hw), 0, width - 2)
    down_hw1, right_hw1 = (from_y_hw - top_hw)[..., None], (from_x_hw - left_hw)[..., None]
    at_hw = (top_hw * width + left_hw).astype(jnp.int32)
    pixels_nc = image_hwc.reshape(height * width, channels)
    above = pixels_nc[at_hw] * (1 - right_hw1) + pixels_nc[at_hw + 1] * right_hw1
    below = pixels_nc[at_hw + width] * (1 - right_hw1) + pixels_nc[at_hw + width + 1] * right_hw1
    return above * (1 - down_hw1) + below * down_hw1


def _hue_rotation(angle: jax.Array) -> jax.Array:
    """Returns the matrix (3, 3) that rotates I and Q of YIQ by an angle and keeps the luma Y."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    one, nil = jnp.ones_like(cos), jnp.zeros_like(cos)
    turn = jnp.stack([jnp.stack(row) for row in ((one, nil, nil), (nil, cos, -sin), (nil, sin, cos))])
    return jnp.asarray(np.linalg.inv(_YIQ)) @ turn @ jnp.asarray(_YIQ)


def _recoloured(image_hwc: jax.Array, matrix_cc: jax.Array) -> jax.Array:
    """Returns each pixel multiplied by a matrix (out, in). Sums are faster than a matrix product of width 3."""
    return sum((image_hwc[..., c, None] * matrix_cc[:, c] for c in range(3)), jnp.zeros(()))


def _coloured(a: Augmentation, image_hwc: jax.Array, draws: jax.Array) -> jax.Array:
    luma_c = jnp.asarray(_LUMA)
    if a.channel_mix:
        mix_cc = a.channel_mix * draws[3:9].reshape(3, 2)
        # Row c: shares that channel c takes from the two others, minus their sum from itself, so that greys stay grey.
        others = jnp.stack([jnp.roll(jnp.append(row, -row.sum()), c + 1) for c, row in enumerate(mix_cc)])
        image_hwc = _recoloured(image_hwc, jnp.eye(3) + others)
    if a.saturation:
        grey_hw1 = (image_hwc * luma_c).sum(axis=-1, keepdims=True)
        image_hwc = grey_hw1 + (1 + a.saturation * draws[2]) * (image_hwc - grey_hw1)
    if a.hue:
        image_hwc = _recoloured(image_hwc, _hue_rotation(jnp.deg2rad(a.hue) * draws[9]))
    if a.gamma:
        share_hwc = jnp.clip(image_hwc / 255, 1e-3, 1.0)  # 0 ** x has no gradient, and 1e-3 is a quarter of a step
        image_hwc = 255 * share_hwc ** jnp.exp(a.gamma * draws[10])
    if a.contrast:
        mean = (image_hwc * luma_c).sum(axis=-1).mean()
        image_hwc = mean + (1 + a.contrast * draws[1]) * (image_hwc - mean)
    if a.brightness:
        image_hwc = (1 + a.brightness * draws[0]) * image_hwc
    return jnp.clip(image_hwc, 0.0, 255.0)
