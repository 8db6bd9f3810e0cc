"""Against cn_clip's and open_clip's own transforms; and pictures that are none."""

import io

import numpy as np
import pytest
from PIL import Image

from jclip.data.images import Preprocessing, normalise, to_array
from jclip.errors import JclipError

DRAW = np.random.default_rng(0)


def picture(height, width, mode="RGB"):
    channels = len(mode)
    pixels = DRAW.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode if channels > 1 else None)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(30, 50), (77, 40), (32, 32), (9, 9)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_squash_is_cn_clips(size, mode):
    from cn_clip.clip.utils import image_transform

    image, how = picture(*size, mode), Preprocessing(size=32, resize="squash")
    expected = image_transform(32)(image).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(normalise(how, to_array(how, image)[None])[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 50), (77, 40), (33, 100), (32, 32), (65, 66)])
def test_crop_is_open_clips(size):
    from open_clip.transform import image_transform

    image, how = picture(*size), Preprocessing(size=32, resize="crop")
    expected = image_transform(32, is_train=False)(image).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(normalise(how, to_array(how, image)[None])[0], expected, atol=1e-5)


def test_normalise_by_hand():
    how = Preprocessing(size=1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    ours = normalise(how, np.array([[[[0, 255, 51]]]], np.uint8))
    np.testing.assert_allclose(ours, [[[[0.0, 1.0, -3.2]]]], atol=1e-6)


def test_what_is_transparent_shows_the_background():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (200, 0, 0, 255))
    array = to_array(Preprocessing(size=4, background=(1, 2, 3)), png(image))
    assert array[0, 0].tolist() == [1, 2, 3]
    assert array[2, 1].tolist() == [200, 0, 0]


def test_trim_centres_what_is_drawn_in_a_square():
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    image.paste((9, 8, 7, 255), (6, 1, 8, 5))  # 2 wide, 4 high, in the upper right corner
    array = to_array(Preprocessing(size=4, trim=True), image)
    drawn = (array == (9, 8, 7)).all(-1)
    np.testing.assert_array_equal(drawn, [[False, True, True, False]] * 4)
    assert to_array(Preprocessing(size=4, trim=True), Image.new("RGBA", (3, 3))).min() == 255  # nothing drawn at all


def test_every_form_of_a_picture_gives_the_same(tmp_path):
    image, how = picture(20, 30), Preprocessing(size=8)
    data = png(image)
    (tmp_path / "a.png").write_bytes(data)
    expected = to_array(how, image)
    for form in (data, tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image)):
        np.testing.assert_array_equal(to_array(how, form), expected)
    assert to_array(how, expected) is expected  # already of the right size


def test_errors_name_the_picture(tmp_path):
    how = Preprocessing(size=8)
    with pytest.raises(JclipError, match=r"there is no picture .*gone\.png"):
        to_array(how, tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(JclipError, match=r"text\.png cannot be read as a picture \(no known image format\)"):
        to_array(how, tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes(png(picture(40, 40))[:900])
    with pytest.raises(JclipError, match=r"half\.png cannot be read as a picture"):
        to_array(how, tmp_path / "half.png")
    with pytest.raises(JclipError, match="record 7 cannot be read"):
        to_array(how, b"", "record 7")
    with pytest.raises(JclipError, match=r"a picture is float32 \(2, 2, 3\)"):
        to_array(how, np.zeros((2, 2, 3), np.float32))
