"""Augmentation on the device: identities, moves checked by hand, and independence of the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.images import on_device
from jclip.images.on_device import Augmentation

augment = jax.jit(
    on_device.augment, static_argnums=0
)  # operation by operation, compiling would take three times as long
KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
EXAMPLES = np.arange(6, dtype=np.int32)
NUMBERS = [field.name for field in dataclasses.fields(Augmentation) if field.name != "outside"]
EVERYTHING = Augmentation(**dict.fromkeys(NUMBERS, 0.2) | {"rotate": 15.0, "hue": 30.0, "outside": "white"})


def test_zero_rates_change_nothing():
    out = augment(Augmentation(), jnp.asarray(IMAGES), KEY, EXAMPLES)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, IMAGES)


@pytest.mark.parametrize("outside", ["edge", "white", "black"])
def test_tiny_changes_change_little(outside):
    a = Augmentation(**dict.fromkeys(NUMBERS, 1e-7), outside=outside)
    np.testing.assert_allclose(augment(a, IMAGES, KEY, EXAMPLES), IMAGES, atol=0.3)


def test_a_flip_with_probability_one_is_a_mirror_image():
    np.testing.assert_allclose(augment(Augmentation(flip=1.0), IMAGES, KEY, EXAMPLES), IMAGES[:, :, ::-1], atol=1e-3)


def test_flips_have_the_given_probability():
    images = np.repeat(np.arange(4.0)[None, None, :, None], 2000, 0).repeat(4, 1).repeat(3, 3)
    out = augment(Augmentation(flip=0.25), images, KEY, np.arange(2000))
    assert abs(float((out[:, 0, 0, 0] > 1).mean()) - 0.25) < 0.03


def test_scale_and_translate_move_a_dot_within_bounds():
    image = np.zeros((500, 21, 21, 3), np.float32)
    image[:, 10, 10] = 255.0
    out = np.asarray(augment(Augmentation(translate=0.2), image, KEY, np.arange(500)))
    mass = out.sum((1, 2, 3))
    np.testing.assert_allclose(mass, 3 * 255.0, rtol=1e-3)  # bilinear sampling of a pure shift keeps the sum
    at = (out.sum(-1).sum(2) * np.arange(21)).sum(1) / out.sum((1, 2, 3))
    assert abs(at - 10).max() <= 4.2 + 1e-3  # 0.2 of 21 pixels
    assert abs(at - 10).max() > 3.9
    larger = np.asarray(augment(Augmentation(scale=0.5), np.full_like(image, 7.0), KEY, np.arange(500)))
    np.testing.assert_allclose(larger, 7.0, rtol=1e-5)


def test_a_quarter_turn_by_hand():
    images = np.zeros((400, 5, 5, 3), np.float32)
    images[:, 0, 2] = 1.0  # the middle of the upper edge
    out = np.asarray(augment(Augmentation(rotate=90.0), images, KEY, np.arange(400)))[..., 0]
    assert out[:, 2, 0].max() > 0.9 and out[:, 2, 4].max() > 0.9  # the middles of the left and the right edge
    assert out[:, 4, 2].max() < 0.1


def test_outside_is_the_given_colour():
    image = np.full((50, 8, 8, 3), 100.0)
    for outside, least, most in (("white", 100, 255), ("black", 0, 100), ("edge", 100, 100)):
        out = augment(Augmentation(translate=0.5, outside=outside), image, KEY, np.arange(50))
        assert float(out.min()) == pytest.approx(least, abs=1e-3)
        assert float(out.max()) == pytest.approx(most, abs=1e-3)


def test_invariants_of_colour_changes():
    grey = np.full((20, 4, 4, 3), 90.0)
    examples = np.arange(20)
    for name in ("contrast", "saturation", "channel_mix", "hue"):
        np.testing.assert_allclose(augment(Augmentation(**{name: 0.5}), grey, KEY, examples), 90.0, rtol=1e-4)
    colours = np.random.default_rng(1).uniform(100, 150, (20, 4, 4, 3))
    turned = np.asarray(augment(Augmentation(hue=180.0), colours, KEY, examples))
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(turned @ luma, colours @ luma, atol=0.05)
    assert np.abs(turned - colours).max() > 20
    curved = augment(Augmentation(gamma=0.5), np.broadcast_to([0.0, 90.0, 255.0], (20, 4, 4, 3)), KEY, examples)
    np.testing.assert_allclose(curved[..., 2], 255.0, rtol=1e-5)  # white stays white, black black
    assert float(curved[..., 0].max()) < 4
    least, most = (255 * (90 / 255) ** np.exp(exponent) for exponent in (0.5, -0.5))
    assert least <= float(curved[..., 1].min()) < 75 and 105 < float(curved[..., 1].max()) <= most
    out = np.asarray(augment(Augmentation(brightness=0.5), grey, KEY, examples))
    assert 45 <= out.min() < 60 and 120 < out.max() <= 135
    wild = augment(Augmentation(brightness=0.9, contrast=0.9), IMAGES, KEY, EXAMPLES)
    assert float(wild.min()) >= 0 and float(wild.max()) <= 255


def test_an_example_does_not_depend_on_its_batch():
    step = jax.jit(lambda images, examples: augment(EVERYTHING, images, KEY, examples))
    whole = np.asarray(step(IMAGES, EXAMPLES))
    order = np.array([4, 0, 5, 2, 1, 3])
    np.testing.assert_allclose(step(IMAGES[order], EXAMPLES[order]), whole[order], atol=1e-3)
    one = augment(EVERYTHING, IMAGES[2:3], KEY, EXAMPLES[2:3])
    np.testing.assert_allclose(one[0], whole[2], atol=1e-2)
    assert np.abs(whole - np.asarray(augment(EVERYTHING, IMAGES, KEY, EXAMPLES + 6))).max() > 10
    assert np.abs(whole - np.asarray(augment(EVERYTHING, IMAGES, jax.random.key(4), EXAMPLES))).max() > 10
    assert np.isfinite(whole).all()
