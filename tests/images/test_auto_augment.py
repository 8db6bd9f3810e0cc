"""AutoAugment: each operation against timm's on the same draw, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import auto_augment as theirs

from jclip.images.auto_augment import IN_PLACE, MOVING, POLICY, Operation, at_level, draw_operations, operate
from tests.data.pictures import picture
from tests.images.same_draw import SameDraw

FILL, BICUBIC = (123, 117, 104), Image.Resampling.BICUBIC
NAMES = {
    "posterize": "PosterizeOriginal",
    "solarize": "Solarize",
    "invert": "Invert",
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "rotate": "Rotate",
    "shear_x": "ShearX",
}


def hparams(**more):
    return {"img_mean": FILL, "interpolation": BICUBIC, **more}


def pixels(seed, height, width, kind):
    """Returns an image of noise ("noise"), smooth ("smooth"), nearly uniform ("flat") or of one colour ("one")."""
    draw = np.random.default_rng(seed)
    if kind == "smooth":
        small = draw.integers(0, 256, (-(-height // 7), -(-width // 7), 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), BICUBIC)
    low, high = {"noise": (0, 256), "flat": (90, 94), "one": (200, 201)}[kind]
    return Image.fromarray(draw.integers(low, high, (height, width, 3), dtype=np.uint8))


def test_the_policy_is_timms():
    for ours, policy in zip(POLICY, theirs.auto_augment_policy_original(hparams()), strict=True):
        for (name, probability, level), op in zip(ours, policy, strict=True):
            assert (NAMES[name], probability, level) == (op.name, op.prob, op.magnitude)
            assert op.magnitude_std == 0
    assert NAMES.keys() == IN_PLACE.keys() | MOVING.keys() == {name for pair in POLICY for name, _, _ in pair}


def test_levels_by_hand():
    assert at_level("posterize", 8) == Operation("posterize", 7)
    assert at_level("solarize", 5) == Operation("solarize", 128)
    assert at_level("rotate", 9).value == pytest.approx(27)
    assert at_level("shear_x", 5).value == pytest.approx(0.15)
    assert at_level("color", 0).value == pytest.approx(0.1)
    assert at_level("contrast", 8).value == pytest.approx(1.54)
    assert at_level("equalize", 9) == Operation("equalize", 0)


@pytest.mark.parametrize("name", NAMES)
@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 48),
    width=st.integers(1, 48),
    kind=st.sampled_from(["noise", "smooth", "flat", "one"]),
    level=st.integers(0, 10),
    fill=st.tuples(*[st.integers(0, 255)] * 3),
    resample=st.sampled_from([BICUBIC, Image.Resampling.BILINEAR]),
    negative=st.booleans(),
)
def test_every_operation_is_timms(name, seed, height, width, kind, level, fill, resample, negative):
    image = pixels(seed, height, width, kind)
    before = image.tobytes()
    op = theirs.AugmentOp(NAMES[name], 1.0, level, {"img_mean": fill, "interpolation": resample})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs.random, "random", lambda: 0.9 if negative else 0.1)
        expected = op(image)
    operation = at_level(name, level)
    if negative and name in MOVING:
        operation = operation._replace(value=-operation.value)
    ours = operate(image, operation, fill, resample)
    assert (ours.size, ours.mode) == (image.size, "RGB")
    np.testing.assert_array_equal(ours, expected)
    assert image.tobytes() == before


def test_what_is_drawn_is_what_timm_draws(monkeypatch):
    image, policy = picture(16, 20, coarse=4), theirs.auto_augment_transform("original", hparams())
    drawn, unchanged = set(), 0
    for seed in range(2000):
        operations = draw_operations(np.random.default_rng(seed).random)
        ours = image
        for operation in operations:
            ours = operate(ours, operation, FILL, BICUBIC)
        monkeypatch.setattr(theirs, "random", SameDraw(np.random.default_rng(seed).random))
        np.testing.assert_array_equal(ours, policy(image))
        drawn.update(operations)
        unchanged += not operations
    assert {name for name, _ in drawn} == NAMES.keys()
    assert {value > 0 for name, value in drawn if name == "rotate"} == {True, False}
    assert 0 < unchanged < 400
