"""Opening images: formats by content, limits before memory is allocated, camera orientation, and odd files."""

import io
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jclip.errors import JclipError
from jclip.images import opening
from jclip.images.opening import FORMATS, REFUSED, PictureError, open_header, orientation_of, picture_endings
from jclip.images.preprocess import Preprocessing, open_picture, to_array
from tests.data.pictures import encoded, picture

HOW = Preprocessing(size=8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *more, pixels=b""):
    """Returns a PNG of a header that need not be true, further chunks, and compressed pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *more, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")))


def iptc(inside):
    """Returns an IPTC stream of one layer, compressed as "jpeg", that contains another image."""

    def field(record, number, data):
        return bytes([0x1C, record, number]) + struct.pack(">H", len(data)) + data

    fields = ((60, b"\x01\x00"), (20, b"\x00\x09"), (30, b"\x00\x09"), (120, b"\x05"))
    return b"".join(field(3, number, data) for number, data in fields) + field(8, 10, inside)


# Beginnings of files by which Pillow knows the formats that are not read.
FOREIGN = {
    "EPS": EPS,
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(100),
    "BUFR": b"BUFR" + bytes(100),
    "GRIB": b"GRIB\0\0\0\x01" + bytes(100),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "MPEG": b"\x00\x00\x01\xb3" + bytes(100),
}


@pytest.fixture
def _no_programs(monkeypatch):
    def started(*arguments, **options):
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    monkeypatch.setattr(os, "posix_spawn", started)


@pytest.mark.usefixtures("_no_programs")
@pytest.mark.parametrize("form", sorted(FOREIGN))
def test_formats_that_pillow_does_not_decode_itself_are_refused_by_name(form, tmp_path):
    (tmp_path / "a.jpg").write_bytes(FOREIGN[form])
    with pytest.raises(
        PictureError, match=rf"a\.jpg cannot be read as an image \({form} .* and is not read\)"
    ) as caught:
        to_array(HOW, tmp_path / "a.jpg")
    assert caught.value.kind == "the image's format is not read"
    assert not any(end in picture_endings() for end in ("eps", "ps", "wmf", "emf", "h5", "grib", "bufr", "mpg", "pdf"))


@pytest.mark.usefixtures("_no_programs")
def test_an_eps_inside_another_format_is_not_reached():
    """Pillow's IPTC plugin opens its content in any format, so the program for EPS would run."""
    data = iptc(EPS)
    with pytest.raises(AssertionError, match="a program was started"):
        Image.open(io.BytesIO(data)).load()
    with pytest.raises(PictureError, match="no known image format"):
        to_array(HOW, data)


@pytest.mark.usefixtures("_no_programs")
def test_an_eps_that_is_opened_already_is_not_decoded():
    with pytest.raises(PictureError, match="EPS starts another program and is not read"):
        to_array(HOW, Image.open(io.BytesIO(EPS)))


def test_each_of_pillows_formats_is_either_read_or_refused():
    """A format that a later Pillow adds must be classified first. FPX and MIC need olefile, HEIF has its own extra."""
    Image.init()
    assert set(FORMATS).isdisjoint(REFUSED)
    assert set(Image.OPEN) - {"FPX", "MIC", "HEIF"} == {*FORMATS, *REFUSED}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA"])
def test_the_usual_formats_are_read_whatever_their_name(form, tmp_path):
    image = picture(16, 16, coarse=4)
    data = encoded(image, form)
    (tmp_path / "a.gif").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(to_array(Preprocessing(size=16), tmp_path / "a.gif"), expected)


def test_heic_is_read_with_its_extra_and_the_extra_is_named_without(monkeypatch):
    import pillow_heif

    image = picture(64, 64, coarse=32)
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95)
    data = stream.getvalue()
    found = to_array(Preprocessing(size=64), data).astype(int)
    assert np.abs(found - np.asarray(image)).mean() < 4
    assert open_header(data, "").size == (64, 64)
    with pytest.raises(PictureError, match="more than the limit of 0.001"):
        open_header(data, "", 0.001)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    opening._openers.cache_clear()
    try:
        with pytest.raises(
            PictureError, match=r'x\.heic cannot be read as an image \(HEIC needs: pip install "jclip\[heic\]"\)'
        ):
            to_array(HOW, data, "x.heic")
    finally:
        opening._openers.cache_clear()
    assert "heic" in picture_endings()


def test_the_size_in_the_header_is_checked_against_the_limit():
    data = png(13_000, 14_000)
    with pytest.raises(PictureError) as caught:
        open_header(data, "big.png", 89)
    said = (
        "big.png cannot be read as an image (182 megapixels, more than the limit of 89): make it smaller, or set "
        "JCLIP_MAX_MEGAPIXELS=182"
    )
    assert (str(caught.value), caught.value.kind) == (said, "the image is too large")
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker process
    assert (str(again), again.kind, again.why) == (said, caught.value.kind, caught.value.why)
    for width, height, said in ((1000, 1000, "1 mega"), (30_000, 30_000, "900 mega"), (90_000, 1000, "90 mega")):
        with pytest.raises(PictureError, match=said):
            open_header(png(width, height), "", 0.9 if width == 1000 else 89)
    assert open_header(png(1000, 1000), "", 1).size == (1000, 1000)  # neither a warning nor an error of Pillow's


def test_our_limit_replaces_pillows_while_an_image_is_opened(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    image = picture(60, 60)
    for form in ("PNG", "TIFF", "WEBP", "GIF"):
        assert open_picture(encoded(image, form), "", megapixels=1).size == (60, 60)
    trimmed = Preprocessing(size=8, background=(0, 0, 0), trim=True)
    assert to_array(trimmed, encoded(image.convert("RGBA"))).shape == (8, 8, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_picture(encoded(image), "", megapixels=1), range(40)))
    assert Image.MAX_IMAGE_PIXELS == 100


def test_the_default_limit(monkeypatch):
    monkeypatch.delenv("JCLIP_MAX_MEGAPIXELS", raising=False)
    assert 16 <= opening.max_megapixels() <= 178
    opening._from_memory.cache_clear()
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**30 // 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(opening.Path, "read_text", lambda *_, **__: "max")
    assert opening.max_megapixels() == 67  # 16 GiB / 4 / 4 cores / 16 bytes
    opening._from_memory.cache_clear()
    monkeypatch.setattr(opening.Path, "read_text", lambda *_, **__: str(8 * 2**30))
    assert opening.max_megapixels() == 33  # half of that in a container
    opening._from_memory.cache_clear()
    monkeypatch.setenv("JCLIP_MAX_MEGAPIXELS", "0.5")
    assert opening.max_megapixels() == 0.5
    with pytest.raises(PictureError, match="1 megapixels, more than the limit of 0.5"):
        to_array(HOW, png(1000, 1000))
    for wrong in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("JCLIP_MAX_MEGAPIXELS", wrong)
        with pytest.raises(JclipError, match=f"JCLIP_MAX_MEGAPIXELS is '{wrong}', but must be a number above 0"):
            opening.max_megapixels()


BOMB = """
import resource, sys, warnings
from jclip.images.modes import to_convertible
from jclip.images.opening import PictureError, load, open_header, orientation_of
warnings.simplefilter("ignore")
data = open(sys.argv[1], "rb").read()
open_header(open(sys.argv[2], "rb").read(), "")  # which imports all of Pillow
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    image = open_header(data, "bomb")
    orientation_of(image, data)
    load(image, "bomb")
    to_convertible(image, "bomb").resize((8, 8)).convert("RGB")
    print("read", end=" ")
except PictureError as error:
    print(error.why, end=" ")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def tagged(count, size):
    """Returns a TIFF whose tags all point at the same bytes, so that reading them takes `count` times `size`."""
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    entries += [(40_000 + number, 1, size, 8) for number in range(count)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + body


def _zeros():
    return zlib.compress(bytes(300 << 20), 9)  # 300 MiB in 300 KB


def _animation():
    frames = [Image.new("P", (2000, 2000), number) for number in range(60)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _icon():
    inside = png(20_000, 20_000)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def _webp(width, height):
    data = bytearray(
        encoded(Image.new("RGB", (4, 4)), "WEBP", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")])
    )
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


BOMBS = {
    "text": lambda: png(8, 8, chunk(b"zTXt", b"Comment\0\0" + _zeros()), pixels=bytes(25 * 8)),
    "profile": lambda: png(8, 8, chunk(b"iCCP", b"icc\0\0" + _zeros()), pixels=bytes(25 * 8)),
    "pixels beyond the header": lambda: png(8, 8, pixels=bytes(300 << 20)),
    "tags": lambda: tagged(20_000, 1 << 20),
    "animation": _animation,
    "canvas": lambda: _webp(16_383, 16_383),
    "icon": _icon,
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_small_files_take_little_memory(name, tmp_path):
    """With a limit of 16 megapixels, at 16 bytes each, no file may take more than 256 MiB."""
    (tmp_path / "bomb").write_bytes(BOMBS[name]())
    (tmp_path / "small").write_bytes(encoded(picture(8, 8)))
    run = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "bomb"), str(tmp_path / "small")],
        env={**os.environ, "JCLIP_MAX_MEGAPIXELS": "16"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert not run.returncode, run.stderr
    assert int(run.stdout.split()[-1]) < 256, run.stdout


ORIENTATIONS = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "cadb", 7: "dbca", 8: "bdac"}
"""Corners of the upright image for each EXIF orientation of an image with the corners a b / c d."""


def image_with_orientation(orientation, form="PNG", mode="RGB"):
    corners = np.array([[10, 90], [170, 250]], np.uint8)  # a b / c d
    image = Image.fromarray(np.kron(corners, np.ones((8, 8), np.uint8))).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if form in ("JPEG", "AVIF") else {"lossless": True} if form == "WEBP" else {}
    return encoded(image, form, exif=exif, **options)


def corners_of(array):
    values = array[[0, 0, -1, -1], [0, -1, 0, -1], 0].astype(int)
    return "".join("abcd"[int(np.abs(np.array([10, 90, 170, 250]) - value).argmin())] for value in values)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_ignored_or_applied(form, orientation):
    data = image_with_orientation(orientation, form)
    stored, upright = (to_array(Preprocessing(size=16, orientation=how), data) for how in ("ignore", "apply"))
    assert corners_of(upright) == ORIENTATIONS[orientation]
    assert orientation_of(open_header(data, ""), data) == orientation
    if form != "AVIF":  # which turns by itself what its own boxes say
        assert corners_of(stored) == "abcd"
        assert corners_of(to_array(Preprocessing(size=16), Image.open(io.BytesIO(data)))) == "abcd"


def test_a_tiff_is_upright_in_any_case():
    data = image_with_orientation(6, "TIFF")
    for how in ("ignore", "apply"):
        assert corners_of(to_array(Preprocessing(size=16, orientation=how), data)) == ORIENTATIONS[6]
    assert orientation_of(open_header(data, ""), data) == 1


@pytest.mark.parametrize("exif", [b"", b"junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_exif_turns_nothing(exif):
    data = encoded(picture(16, 16), "JPEG", exif=exif)
    expected = to_array(HOW, data)
    np.testing.assert_array_equal(to_array(Preprocessing(size=8, orientation="apply"), data), expected)
    for odd in (0, 9, 65535):
        assert orientation_of(open_header(image_with_orientation(odd), ""), image_with_orientation(odd)) == 1


@pytest.fixture
def _never_hangs():
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.usefixtures("_never_hangs")
def test_only_regular_files_of_a_bounded_size_are_pictures(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    cases = {"pipe": "a FIFO", "zero": "a device", "folder": "a folder", "socket": "a socket"}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        for name, what in cases.items():
            said = rf"{name}\.png cannot be read as an image \(it is {what}, not a regular file\)"
            for path in (tmp_path / f"{name}.png", str(tmp_path / f"{name}.png")):
                with pytest.raises(PictureError, match=said):
                    to_array(HOW, path)
    (tmp_path / "a.png").write_bytes(encoded(picture(9, 9)))
    (tmp_path / "link.png").symlink_to("a.png")
    assert to_array(HOW, tmp_path / "link.png").shape == (8, 8, 3)
    monkeypatch.setattr(opening, "LARGEST_PICTURE", 100)
    with pytest.raises(
        PictureError, match=r"a\.png cannot be read as an image \(it is a file of more than 100 bytes\)"
    ):
        to_array(HOW, tmp_path / "a.png")
    for odd in ("no/such", "a\0b", "a.png/b", "x" * 300, "\udcff.png"):
        with pytest.raises(JclipError):
            to_array(HOW, odd)
    if os.geteuid():
        (tmp_path / "a.png").chmod(0)
        with pytest.raises(PictureError, match="Permission denied"):
            to_array(HOW, tmp_path / "a.png")


@pytest.mark.parametrize(
    "odd", [None, 7, 1.5, ["a.png"], ("a.png", "b.png"), {"bytes": b""}, bytearray(b"x"), object()]
)
def test_objects_that_are_not_images_are_named(odd):
    with pytest.raises(
        JclipError, match=r"pictures\[3\] is (None|of type \w+), but must be a PIL image, a path, encoded"
    ):
        to_array(HOW, odd, "pictures[3]")


def test_trimming_a_line_does_not_make_a_huge_square():
    line = Image.new("RGBA", (100_000, 1), (9, 9, 9, 255))
    with pytest.raises(JclipError, match="is 100000 x 1 pixels, too long to centre it in a square: cut it"):
        to_array(Preprocessing(size=8, background=(0, 0, 0), trim=True), line)


def test_importing_leaves_pillow_alone():
    """Its limit, formats and plugins belong to the program that imports jclip."""
    code = (
        "from PIL import Image\n"
        "state = lambda: (Image.MAX_IMAGE_PIXELS, *map(list, (Image.ID, Image.OPEN, Image.EXTENSION)))\n"
        "before = state()\n"
        "import jclip.images.preprocess; import jclip.images.opening\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
