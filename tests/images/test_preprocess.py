"""Preprocessing against the transforms of cn_clip, open_clip and transformers, on every kind of image; bad input."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from jclip.configs.demo import common
from jclip.demo import page
from jclip.errors import JclipError
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing, normalise, to_array
from tests.data.pictures import SIZES, encoded, files, picture

WHITE = (255, 255, 255)


def transform(resize):
    """Returns the reference's transform without its normalisation, and the whole transform."""
    if resize == "squash":
        from cn_clip.clip.utils import image_transform

        whole = image_transform(32)
    else:
        from open_clip.transform import image_transform

        whole = image_transform(32, is_train=False)
    return type(whole)(whole.transforms[:-1]), whole


def as_reference(function, image):
    with warnings.catch_warnings():  # Pillow warns that RGB loses transparency
        warnings.simplefilter("ignore")
        return function(image).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_every_kind_of_image_is_preprocessed_as_by_the_references(size, resize):
    before, whole = transform(resize)
    how = Preprocessing(size=32, resize=resize)
    for kind, data in files(*size):
        image = Image.open(io.BytesIO(data))
        ours = to_array(how, data)
        expected = as_reference(before, image) * np.float32(255)
        np.testing.assert_array_equal(ours, expected.round(), err_msg=kind)
        np.testing.assert_allclose(expected, expected.round(), atol=1e-4)  # the reference had uint8 too
        np.testing.assert_allclose(normalise(how, ours[None])[0], as_reference(whole, image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_arrays_are_accepted_as_images(resize):
    before, _ = transform(resize)
    for size in SIZES:
        image = picture(*size)
        ours = to_array(Preprocessing(size=32, resize=resize), np.asarray(image))
        np.testing.assert_array_equal(ours, (as_reference(before, image) * 255).round())


@pytest.mark.parametrize(("coarse", "most"), [(6, 4), (1, 21)], ids=["smooth", "noise"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_transformers_differs_by_no_more_than_the_docstring_says(resize, coarse, most):
    from transformers import ChineseCLIPImageProcessor, CLIPImageProcessor

    square = {"height": 96, "width": 96}
    theirs = (
        ChineseCLIPImageProcessor(size=square, do_center_crop=False)
        if resize == "squash"
        else CLIPImageProcessor(size={"shortest_edge": 96}, crop_size=square)
    )
    how, largest = Preprocessing(size=96, resize=resize), 0.0
    for width in range(96, 297, 4):  # the crops agree because the part cut off 96 x width is a multiple of 4
        image = picture(96 * 3, width * 3, coarse=coarse)
        values = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        steps = (values * np.array(CLIP_STD) + np.array(CLIP_MEAN)) * 255
        largest = max(largest, np.abs(steps.round() - to_array(how, image)).max())
    assert largest <= most


def test_normalise_by_hand():
    how = Preprocessing(size=1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    ours = normalise(how, np.array([[[[0, 255, 51]]]], np.uint8))
    np.testing.assert_allclose(ours, [[[[0.0, 1.0, -3.2]]]], atol=1e-6)


def test_transparent_pixels_show_the_background():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (200, 0, 0, 255))
    array = to_array(Preprocessing(size=4, background=(1, 2, 3)), encoded(image))
    assert array[0, 0].tolist() == [1, 2, 3]
    assert array[2, 1].tolist() == [200, 0, 0]


def test_trim_centres_what_is_drawn_in_a_square():
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    image.paste((9, 8, 7, 255), (6, 1, 8, 5))  # 2 wide, 4 high, in the upper right corner
    how = Preprocessing(size=4, background=WHITE, trim=True)
    drawn = (to_array(how, image) == (9, 8, 7)).all(-1)
    np.testing.assert_array_equal(drawn, [[False, True, True, False]] * 4)
    assert to_array(how, Image.new("RGBA", (3, 3))).min() == 255  # nothing drawn at all
    with pytest.raises(JclipError, match="trim needs a background"):
        Preprocessing(trim=True)


def test_the_demos_preprocessing_has_not_changed():
    """The demo's figures were measured with this order: over white, then RGB, then resized."""
    trained_on, shown_as = common.PREPROCESSING, page._SHOWN_AS
    assert trained_on == Preprocessing(32, CLIP_MEAN, CLIP_STD, "squash", WHITE, trim=True)
    assert shown_as == Preprocessing(72, CLIP_MEAN, CLIP_STD, "squash", WHITE, trim=False)
    framed = Image.new("RGBA", (72, 72), (0, 0, 0, 0))
    framed.paste(picture(40, 30, 4, coarse=5), (11, 20))
    framed.putalpha(framed.getchannel("A").point(lambda alpha: max(0, alpha - 60) * 2))
    left, top, right, bottom = framed.getchannel("A").getbbox()
    side = max(right - left, bottom - top)
    square = Image.new("RGBA", (side, side))
    square.paste(framed.crop((left, top, right, bottom)), ((side - right + left) // 2, (side - bottom + top) // 2))
    for how, image in ((trained_on, square), (shown_as, framed)):
        flat = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
        expected = flat.resize((how.size, how.size), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(to_array(how, encoded(framed)), expected)


def test_every_form_of_a_picture_gives_the_same(tmp_path):
    image, how = picture(20, 30), Preprocessing(size=8)
    data = encoded(image)
    (tmp_path / "a.png").write_bytes(data)
    expected = to_array(how, image)
    for form in (data, tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image)):
        np.testing.assert_array_equal(to_array(how, form), expected)
    assert to_array(how, expected) is expected  # already of the right size


def test_errors_name_the_picture(tmp_path):
    how = Preprocessing(size=8)
    with pytest.raises(JclipError, match=r"there is no image .*gone\.png"):
        to_array(how, tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(JclipError, match=r"text\.png cannot be read as an image \(no known image format\)"):
        to_array(how, tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes(encoded(picture(40, 40))[:900])
    with pytest.raises(JclipError, match=r"half\.png cannot be read as an image"):
        to_array(how, tmp_path / "half.png")
    with Image.open(tmp_path / "half.png") as half, pytest.raises(JclipError, match="an image cannot be read"):
        to_array(how, half)
    with pytest.raises(JclipError, match="record 7 cannot be read"):
        to_array(how, b"", "record 7")
    with pytest.raises(JclipError, match=r"an image is float32 \(2, 2, 3\)"):
        to_array(how, np.zeros((2, 2, 3), np.float32))
    with pytest.raises(JclipError, match=r"an image is 1 x 9000 pixels, too long .* to 224: cut it"):
        to_array(Preprocessing(resize="crop"), np.zeros((9000, 1, 3), np.uint8))
