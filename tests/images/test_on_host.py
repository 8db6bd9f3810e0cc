"""Augmentation on the host: cn_clip's own transform to the bit, the distribution of draws, and what they depend on."""

import io
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jclip.configs.chinese_clip.recipe import AUGMENTATION, finetuning, pretraining
from jclip.errors import JclipError
from jclip.images.on_host import Decoder, HostAugmentation, apply_changes, draw_changes, random_numbers
from jclip.images.preprocess import Preprocessing, to_array
from tests.data.pictures import SIZES, encoded, files, picture
from tests.images.same_draw import drawing_from

HOW = Preprocessing(size=32)


def transform(size):
    """Returns cn_clip's training transform under --use-augment, up to uint8."""
    from cn_clip.training.data import LMDBDataset

    whole = LMDBDataset._build_transform(SimpleNamespace(split="train", use_augment=True), size)
    names = [type(step).__name__ for step in whole.transforms]
    assert names[:2] == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip"] and names[3] == "AutoAugment"
    assert names[-2:] == ["MaybeToTensor", "Normalize"]
    return type(whole)(whole.transforms[:-2])


@pytest.fixture(scope="module")
def cn_clip():
    return transform(HOW.size)


def test_every_stage_of_the_recipe_augments_as_the_authors_scripts():
    for run in (pretraining("vit_b_16"), pretraining("vit_l_14_336"), finetuning("vit_b_16", "muge")):
        assert {stage.objective.host_augmentation for stage in run.stages} == {AUGMENTATION}


def test_the_recipe_is_cn_clips_on_every_kind_of_picture(cn_clip):
    """Every kind and size, with a draw of its own."""
    example = 0
    for size in SIZES:
        for kind, data in files(*size):
            ours = Decoder(HOW, AUGMENTATION, seed=3, stage=1)(data, example)
            with drawing_from(random_numbers(3, 1, example)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, that RGB loses transparency
                expected = cn_clip(Image.open(io.BytesIO(data)))
            np.testing.assert_array_equal(ours, expected, err_msg=f"{kind} {size}")
            assert ours.dtype == np.uint8 and ours.shape == (32, 32, 3)
            example += 1


def test_the_recipe_is_cn_clips_on_a_thousand_draws(cn_clip):
    data = encoded(picture(60, 80, coarse=9), "JPEG", quality=90)
    image, seen = Image.open(io.BytesIO(data)), set()
    for example in range(1000):
        ours = Decoder(HOW, AUGMENTATION)(data, example)
        with drawing_from(random_numbers(0, 0, example)):
            np.testing.assert_array_equal(ours, cn_clip(image))
        seen.add(ours.tobytes())
    assert len(seen) > 600  # so small an image has few crops of nine tenths


@pytest.mark.parametrize(("height", "width"), [(375, 500), (640, 480), (224, 224), (270, 480)])
def test_the_recipe_is_cn_clips_on_photographs_sizes(height, width):
    data, theirs = encoded(picture(height, width, coarse=9), "JPEG", quality=90), transform(224)
    for example in range(12):
        with drawing_from(random_numbers(0, 0, example)):
            expected = theirs(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(Decoder(Preprocessing(), AUGMENTATION)(data, example), expected)


ranges = st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)).map(lambda ends: tuple(sorted(ends)))
ratios = st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0)).map(lambda ends: tuple(sorted(ends)))


@given(ranges, ratios, st.integers(12, 900), st.integers(12, 900), st.integers(0, 10_000))
def test_crops_are_timms(scale, ratio, width, height, example):
    from timm.data.transforms import RandomResizedCropAndInterpolation

    changes = draw_changes(HostAugmentation(scale, ratio), (width, height), random_numbers(0, 0, example))
    with drawing_from(random_numbers(0, 0, example)):
        top, left, high, wide = RandomResizedCropAndInterpolation.get_params(
            Image.new("1", (width, height)), scale, ratio
        )
    if wide and high:  # timm may find no pixel at all
        assert changes.box == (left, top, left + wide, top + high)
    left, top, right, bottom = changes.box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_bilinear_is_timms():
    from timm.data import create_transform

    given = {"scale": (0.3, 0.8), "ratio": (0.5, 3.0), "hflip": 0.25, "interpolation": "bilinear"}
    mean = (0.1, 0.9, 1.0)
    whole = create_transform(24, is_training=True, color_jitter=None, auto_augment="original", mean=mean, **given)
    theirs = type(whole)(whole.transforms[:-2])
    ours = Decoder(
        Preprocessing(size=24, mean=mean), HostAugmentation((0.3, 0.8), (0.5, 3.0), 0.25, "original", "bilinear")
    )
    image = picture(70, 50, coarse=6)
    for example in range(200):
        with drawing_from(random_numbers(0, 0, example)):
            np.testing.assert_array_equal(ours(image, example), theirs(image))


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_without_a_crop_pictures_are_resized_as_in_evaluation(resize):
    how, image = Preprocessing(size=16, resize=resize), picture(40, 30, coarse=5)
    plain = to_array(how, image)
    assert Decoder(how)(encoded(image), 0).tolist() == plain.tolist()
    np.testing.assert_array_equal(Decoder(how, HostAugmentation(flip=1.0))(image, 5), plain[:, ::-1])
    np.testing.assert_array_equal(Decoder(how, HostAugmentation(flip=1.0))(plain, 5), plain[:, ::-1])


def test_transparent_pixels_show_the_background():
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    decode = Decoder(Preprocessing(size=8, background=(1, 2, 3)), HostAugmentation((0.5, 1.0), flip=0.5))
    assert (decode(encoded(image), 0) == (1, 2, 3)).all()


def test_draws_have_the_given_probabilities():
    some = HostAugmentation((0.25, 0.5), (0.5, 2.0), 0.3, "original")
    drawn = [draw_changes(some, (400, 400), random_numbers(0, 0, example)) for example in range(4000)]
    areas = np.array([(right - left) * (bottom - top) for (left, top, right, bottom), _, _ in drawn]) / 160_000
    shapes = np.log2([(right - left) / (bottom - top) for (left, top, right, bottom), _, _ in drawn])
    assert areas.min() == pytest.approx(0.25, abs=0.005) and areas.max() == pytest.approx(0.5, abs=0.005)
    assert areas.mean() == pytest.approx(0.375, abs=0.005)
    assert shapes.min() == pytest.approx(-1, abs=0.03) and shapes.max() == pytest.approx(1, abs=0.03)
    assert shapes.mean() == pytest.approx(0, abs=0.05)
    assert np.mean([mirrored for _, mirrored, _ in drawn]) == pytest.approx(0.3, abs=0.03)
    # The first of 25 sub-policies has two operations, of probabilities 0.4 and 0.6.
    posterized_and_turned = [[one.name for one in operations] == ["posterize", "rotate"] for *_, operations in drawn]
    assert np.mean(posterized_and_turned) == pytest.approx(0.24 / 25, abs=0.006)


def test_the_draw_depends_on_seed_stage_and_example_and_nothing_else():
    data = encoded(picture(50, 60, coarse=7))
    decode = Decoder(HOW, AUGMENTATION, seed=2**64 - 1, stage=1)
    first = [decode(data, example) for example in range(20)]
    again = pickle.loads(pickle.dumps(decode))  # in a worker of another process
    for example in reversed(range(20)):
        np.testing.assert_array_equal(again(data, example), first[example])
    others = [(0, 1, 0), (2**64 - 1, 0, 0), (2**64 - 1, 1, 2**31), (2**64 - 1, 1, 2**40)]
    firsts = [random_numbers(*which)() for which in [(2**64 - 1, 1, 0), *others]]
    assert len(set(firsts)) == 5
    assert 0 <= random_numbers(-1, 1, 0)() < 1  # any whole number is a seed


def test_the_input_is_not_changed():
    image = picture(20, 30).quantize(8)
    image.info["transparency"] = 3
    changes = draw_changes(AUGMENTATION, image.size, random_numbers(0, 0, 0))
    before = image.tobytes(), dict(image.info)
    assert apply_changes(HOW, AUGMENTATION, image, changes).mode == "RGB"
    assert (image.tobytes(), image.info) == before


def test_errors_name_what_is_wrong():
    with pytest.raises(JclipError, match="crop_scale is 1 to 0.9: give the lower end first"):
        HostAugmentation(crop_scale=(1, 0.9))
    with pytest.raises(JclipError, match="crop_ratio is 2.0 to 0.5: give the lower end first"):
        HostAugmentation(crop_ratio=(2.0, 0.5))
    with pytest.raises(JclipError, match=r"record 7 cannot be read as an image"):
        Decoder(HOW, AUGMENTATION)(b"no picture", 0, "record 7")
    with pytest.raises(JclipError, match="too long"):
        Decoder(Preprocessing(resize="crop"), HostAugmentation(flip=1.0))(np.zeros((9000, 1, 3), np.uint8), 0)
