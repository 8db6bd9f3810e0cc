"""Every mode of Pillow is converted to the right RGB values, by hand, or refused with the reason."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from jclip.errors import JclipError
from jclip.images import modes
from jclip.images.modes import to_convertible
from jclip.images.on_host import Decoder, HostAugmentation
from jclip.images.preprocess import Preprocessing, to_array
from tests.data.pictures import encoded, picture

HOW = Preprocessing(size=2)


def rows(*values):
    return [[[value] * 3 for value in row] for row in values]


def shown(image, how=HOW):
    return to_array(how, image).tolist()


def tiff(values, bits, sample_format=1, photometric=1, order="<"):
    """Returns an uncompressed grey TIFF of 2 x 2 pixels; `values` are its bytes."""
    entries = [
        (256, 3, 2),
        (257, 3, 2),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 2),
        (279, 4, len(values)),
        (339, 3, sample_format),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(values))
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        field = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
        body += struct.pack(f"{order}HHI", tag, kind, 1) + field
    return head + values + body + bytes(4)


SIXTEEN = np.array([[0, 257], [32896, 65535]], np.uint16)  # 257 times 0, 1, 128, 255


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_sixteen_bits_are_scaled_by_their_range(resize):
    how, expected = Preprocessing(size=2, resize=resize), rows([0, 1], [128, 255])
    image = Image.fromarray(SIXTEEN)
    assert shown(image, how) == expected
    for data in (encoded(image), encoded(image, "TIFF"), encoded(image, "TIFF", compression="tiff_deflate")):
        assert shown(data, how) == expected
    big = b"P5 2 2 65535\n" + SIXTEEN.astype(">u2").tobytes()
    assert shown(big, how) == expected  # Pillow opens it in mode I
    assert shown(tiff(SIXTEEN.astype(">u2").tobytes(), 16, order=">"), how) == expected


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_every_order_of_sixteen_bits(mode):
    kind = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (2, 2), SIXTEEN.astype(kind).tobytes())
    assert shown(image) == rows([0, 1], [128, 255])


def test_values_are_rounded_to_the_nearest():
    image = Image.fromarray(np.array([[128, 129], [385, 386]], np.uint16))  # halves of 257 are 128.5 and 385.5
    assert shown(image) == rows([0, 1], [1, 2])


def test_training_and_encoding_see_the_same():
    data = encoded(Image.fromarray(SIXTEEN))
    expected = rows([0, 1], [128, 255])
    assert Decoder(HOW)(data, 0).tolist() == expected
    mirrored = Decoder(HOW, HostAugmentation(flip=1.0))(data, 0)
    assert mirrored.tolist() == [row[::-1] for row in expected]


def test_twelve_bits_in_a_tiff():
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x01])  # 0, 4095; 2048, 1, as 12 bits after 12 bits
    assert shown(tiff(packed, 12)) == rows([0, 255], [128, 0])


@pytest.mark.parametrize(("bits", "kind"), [(16, "<u2"), (32, "<f4")])
def test_white_may_be_zero(bits, kind):
    values = np.array([[0, 65535], [13107, 52428]]) / (1 if bits == 16 else 65535)
    data = tiff(values.astype(kind).tobytes(), bits, 1 if bits == 16 else 3, photometric=0)
    assert shown(data) == rows([255, 0], [204, 51])


def test_whole_numbers_beyond_sixteen_bits_by_their_own_range():
    image = Image.fromarray(np.array([[-100, 0], [60, 300]], np.int32))
    assert shown(image) == rows([0, 64], [102, 255])  # 63.75 and 102
    unsigned = np.array([[0, 2**31], [2**32 - 1, 2**30]], "<u4")
    assert shown(tiff(unsigned.tobytes(), 32)) == rows([0, 128], [255, 64])
    signed = np.array([[-300, 0], [300, -150]], "<i2")
    assert shown(tiff(signed.tobytes(), 16, 2)) == rows([0, 128], [255, 64])


def test_floats_in_0_to_1_and_beyond():
    image = Image.fromarray(np.array([[0, 0.2], [0.6, 0.8]], np.float32))
    assert shown(image) == shown(encoded(image, "TIFF")) == rows([0, 51], [153, 204])
    assert shown(Image.fromarray(np.array([[-1, 0], [1, 3]], np.float32))) == rows([0, 64], [128, 255])
    assert shown(Image.new("F", (2, 2), 7.0)) == rows([0, 0], [0, 0])  # a range of nothing


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_that_is_not_finite_is_refused(value):
    image = Image.fromarray(np.array([[0, value]], np.float32))
    for form in (image, encoded(image, "TIFF")):
        with pytest.raises(JclipError, match=r"it cannot be read as an image \(it holds values that are not finite\)"):
            to_array(HOW, form, "it")


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_sixteen_bits_are_never_off_by_more_than_half_a_step(values):
    image = Image.fromarray(np.array([values], np.uint16))
    grey = np.asarray(to_convertible(image, ""))[0]
    assert np.abs(grey - np.array(values) / 257).max() <= 0.5 + 1e-9


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=2, max_size=20))
def test_floats_keep_their_order_and_fill_the_range(values):
    image = Image.fromarray(np.array([values], np.float32))
    grey = np.asarray(to_convertible(image, ""))[0].astype(int)
    order = np.argsort(values, kind="stable")
    assert (np.diff(grey[order]) >= 0).all()
    if max(values) > 1 or min(values) < 0:
        assert min(values) == max(values) or (grey.min(), grey.max()) == (0, 255)


def test_large_pictures_are_scaled_a_stretch_at_a_time(monkeypatch):
    monkeypatch.setattr(modes, "_AT_ONCE", 7)
    values = np.arange(0, 65535, 257, np.uint16)[:250].reshape(10, 25)
    np.testing.assert_array_equal(
        np.asarray(to_convertible(Image.fromarray(values), "")), np.arange(250).reshape(10, 25)
    )


def test_a_grey_level_of_sixteen_bits_may_be_transparent():
    data = encoded(Image.fromarray(SIXTEEN), transparency=65535)
    assert shown(data) == rows([0, 1], [128, 255])  # alpha is dropped, as in the references
    over = to_array(Preprocessing(size=2, background=(9, 8, 7)), data)
    assert over[1, 1].tolist() == [9, 8, 7]
    assert over[1, 0].tolist() == [128] * 3


def test_premultiplied_alpha_is_divided_out():
    half = Image.new("RGBa", (2, 2), (50, 25, 100, 128))
    assert np.abs(to_array(HOW, half)[0, 0].astype(int) - [100, 50, 199]).max() <= 1
    grey = Image.new("LA", (2, 2), (100, 128)).convert("La")
    assert np.abs(to_array(HOW, grey).astype(int) - 100).max() <= 1


def test_lab_is_a_colour_space():
    red = Image.new("LAB", (2, 2), (138, 209, 198))  # L 54.3, a 81, b 70: sRGB's red under D50
    assert np.abs(to_array(HOW, red)[0, 0].astype(int) - [255, 0, 0]).max() <= 6
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    smooth = picture(32, 32, coarse=8)
    there = ImageCms.profileToProfile(smooth, srgb, lab, outputMode="LAB")
    again = to_array(Preprocessing(size=32), encoded(there, "TIFF")).astype(int)
    assert np.abs(again - np.asarray(smooth)).mean() < 3


def test_hues_do_not_average():
    """Red is hue 0 and hue 255: halfway between lies cyan, which is in neither."""
    image = Image.new("HSV", (4, 4), (0, 255, 255))
    image.paste((255, 255, 255), (2, 0, 4, 4))
    red, green, blue = to_array(HOW, image).reshape(-1, 3).astype(int).T
    assert red.min() > 200 > 60 > max(green.max(), blue.max())


@pytest.mark.parametrize("mode", sorted(Image.MODES))
def test_every_mode_has_a_rule(mode):
    """White stays white and black black, in every mode there is, and in all sizes."""
    whites = {"1": 1, "L": 255, "P": 1, "I": 65535, "F": 1.0, "HSV": (0, 0, 255), "LAB": (255, 128, 128)}
    whites |= {"CMYK": (0, 0, 0, 0), "YCbCr": (255, 128, 128), "LA": (255, 255), "PA": (1, 255), "La": (255, 255)}
    white = 65535 if mode.startswith("I;16") else whites.get(mode, (255, 255, 255, 255)[: len(mode)])
    blacks = {"CMYK": (0, 0, 0, 255), "YCbCr": (0, 128, 128), "LAB": (0, 128, 128)}
    blacks |= {"LA": (0, 255), "PA": (0, 255), "La": (0, 255), "RGBA": (0, 0, 0, 255), "RGBa": (0, 0, 0, 255)}
    image = Image.new(mode, (4, 4), blacks.get(mode, 0))
    if mode in ("P", "PA"):
        image.putpalette([0, 0, 0, 255, 255, 255])
    image.paste(white, (2, 0, 4, 4))
    found = to_array(Preprocessing(size=4), image).astype(int)
    assert found[:, :2].max() <= 3 and found[:, 2:].min() >= 252


def test_a_mode_without_a_rule_is_an_error(monkeypatch):
    monkeypatch.setattr(modes, "_AS_THEY_ARE", ())
    with pytest.raises(JclipError, match=r"it cannot be read as an image \(its mode is RGB\)"):
        to_convertible(Image.new("RGB", (1, 1)), "it")


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_a_picture_without_pixels_is_an_error(size):
    with pytest.raises(JclipError, match=rf"it has no pixels: {size[0]} x {size[1]}"):
        to_array(HOW, Image.new("RGB", size), "it")
    with pytest.raises(JclipError, match="it has no pixels"):
        to_array(HOW, np.zeros((*size, 3), np.uint8), "it")


def test_sixteen_bits_in_colour_are_pillows_high_bytes():
    """A PNG of RGB in 16 bits: Pillow keeps the upper 8."""
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = b"".join(b"\0" + struct.pack(">6H", *([65535, 256 * 7, 0] * 2)) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert shown(data) == [[[255, 7, 0]] * 2] * 2
    keyed = data.replace(
        chunk(b"IHDR", header), chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">3H", 65535, 1792, 0))
    )
    assert to_array(Preprocessing(size=2, background=(1, 2, 3)), keyed)[0, 0].tolist() in ([1, 2, 3], [255, 7, 0])
