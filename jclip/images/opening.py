"""Opens untrusted encoded images: by content, in this process, within limits of memory.

Reads only the formats that Pillow decodes by itself, and refuses the others by name. EPS starts Ghostscript. IPTC opens
any format that it holds. WMF is drawn by Windows. BUFR, GRIB and HDF5 need another library's handler. Pillow reads only
the header of MPEG. HEIC needs the extra `heic`.

The size is checked as soon as the header is read, before any memory is allocated for pixels. Only the first frame of
an animation is decoded.
"""

import functools
import io
import math
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from jclip.errors import JclipError
from jclip.extras import installing
from jclip.io.machine import machine_memory
from jclip.io.reading import LARGEST_PICTURE, Refused, read_regular

MEGAPIXELS_VARIABLE = "JCLIP_MAX_MEGAPIXELS"
"""Environment variable that replaces the default of `max_megapixels`."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA", "DIB", "PSD", "QOI"),
    *("ICNS", "SGI", "PCX", "DDS", "CUR", "DCX", "FITS", "FLI", "BLP", "FTEX", "GBR", "IM", "IMT", "MCIDAS", "MSP"),
    *("PCD", "PIXAR", "SPIDER", "SUN", "XBM", "XPM", "XVTHUMB"),
)
"""Pillow's formats that are read: each is decoded by Pillow itself, without another program or file."""

REFUSED = {
    "EPS": "starts another program",
    "IPTC": "may hold an image of any format",
    "WMF": "is drawn by Windows only",
    "BUFR": "needs another library",
    "GRIB": "needs another library",
    "HDF5": "needs another library",
    "MPEG": "is video",
}
"""Pillow's formats that are not read, each with the reason."""

# Kinds of trouble that reports count.
UNDECODABLE = "the image does not decode"
TOO_LARGE = "the image is too large"
FOREIGN = "the image's format is not read"
UNCONVERTIBLE = "the image cannot be converted"
MISSING = "the image's file is missing"
NO_FILE = "the image is not in a regular file"
UNREADABLE = "the image's file cannot be read"

_HEIC_ENDINGS = ("heic", "heif", "hif")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_USUAL = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff", "tif", "ppm", "pgm")
_BYTES_A_PIXEL = 16  # while an image is decoded, converted and resized
_LEAST, _MOST = 16, 178  # megapixels; beyond the latter Pillow itself refuses by default
_ELSEWHERE = 89  # megapixels, if the memory is not known: Pillow's limit for a warning
_ORIENTATION = 0x0112
_TURNED_BY_DECODER = ("TIFF", "HEIF")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(JclipError):
    """Error of an image: `kind` is one of this module's kinds of trouble, `why` has the details."""

    def __init__(self, message: str, kind: str, why: str):
        super().__init__(message)
        self.kind, self.why = kind, why

    def __reduce__(self) -> tuple[Any, ...]:
        return PictureError, (str(self), self.kind, self.why)


def unreadable_picture(name: str, kind: str, why: object) -> PictureError:
    """Returns the error for an image that cannot be read, with its name and the reason on one line."""
    said = " ".join(str(why).split())[:300] or type(why).__name__
    return PictureError(f"{name} cannot be read as an image ({said})", kind, said)


@functools.cache
def picture_endings() -> tuple[str, ...]:
    """Returns the file extensions of images, lower case and without the dot, the common ones first.

    They are Pillow's extensions of the formats that are read, and HEIC's, even if its extra is not installed.

    >>> picture_endings()[:3], "avif" in picture_endings(), "eps" in picture_endings()
    (('jpg', 'jpeg', 'png'), True, False)
    """
    Image.init()
    read = {"MPO", *(name for name in FORMATS if name in Image.OPEN)}
    known = sorted(ending[1:].lower() for ending, name in Image.registered_extensions().items() if name in read)
    return tuple(dict.fromkeys((*_USUAL, *known, *_HEIC_ENDINGS)))


def is_picture_name(name: str | Path) -> bool:
    """Returns True if a file name has an image's extension.

    >>> [is_picture_name(name) for name in ("a.JPG", "a.b.avif", "a.txt", "jpg")]
    [True, True, False, False]
    """
    return Path(name).suffix.lower().lstrip(".") in picture_endings()


def max_megapixels() -> float:
    """Returns the default maximum size of an image, in millions of pixels.

    It is $JCLIP_MAX_MEGAPIXELS if set. Otherwise it depends on the memory: decoding takes up to 16 bytes a pixel, and
    one image on each core may together take a quarter of the memory. It is 16 to 178; beyond 178, Pillow refuses.
    Raises JclipError if the variable is not a number above 0.
    """
    said = os.environ.get(MEGAPIXELS_VARIABLE)
    if said is None:
        return _from_memory()
    try:
        number = float(said)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise JclipError(f"{MEGAPIXELS_VARIABLE} is {said!r}, but must be a number above 0: set it to 100, or unset it")
    return number


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _from_memory() -> float:
    memory = machine_memory()
    if memory is None:
        return _ELSEWHERE
    return float(min(max(memory // (4 * cores() * _BYTES_A_PIXEL * 10**6), _LEAST), _MOST))


def read_picture(file: str | Path, name: str = "") -> bytes:
    """Returns the bytes of a regular file or a link to one. Messages call it `name`, by default its path.

    Raises PictureError if it is missing, not regular, larger than `LARGEST_PICTURE` bytes, or cannot be read.
    """
    name = name or str(file)
    try:
        return read_regular(Path(file), LARGEST_PICTURE)
    except Refused as error:
        kind = TOO_LARGE if "more than" in error.reason else NO_FILE
        raise unreadable_picture(name, kind, f"it is {error.reason}") from None
    except IsADirectoryError:
        raise unreadable_picture(name, NO_FILE, "it is a folder, not a regular file") from None
    except (FileNotFoundError, NotADirectoryError):
        raise PictureError(f"there is no image {name}", MISSING, "it is missing") from None
    except OSError as error:
        raise unreadable_picture(name, UNREADABLE, error.strerror or error) from None
    except ValueError as error:  # a name with a null character
        raise PictureError(f"there is no image {name!r}: {error}", MISSING, str(error)) from None


def open_header(data: bytes, name: str, megapixels: float | None = None) -> Image.Image:
    """Returns an image after reading its header and checking its size; it is not decoded yet.

    Raises PictureError if the format is unknown or refused, the header is damaged, or the image is too large.

    `name` is for messages; `megapixels` is the maximum size, by default `max_megapixels()`.
    """
    limit = max_megapixels() if megapixels is None else megapixels
    with pillow_allows(limit):
        try:
            image = _identified(data)
        except Exception as error:  # Pillow's readers raise all kinds of errors
            raise _pillow_error(name, error, limit) from None
        if image is None:
            raise _unidentified(data, name)
    _check_size(image, name, limit)
    return image


def load(image: Image.Image, name: str, megapixels: float | None = None) -> None:
    """Decodes an opened image. Raises PictureError if its format is refused, or it is too large or damaged."""
    limit = max_megapixels() if megapixels is None else megapixels
    if image.format in REFUSED:
        raise unreadable_picture(name, FOREIGN, f"{image.format} {REFUSED[image.format]} and is not read")
    if image.format is not None:
        _check_size(image, name, limit)
    try:
        with pillow_allows(limit):
            image.load()
    except Exception as error:  # Pillow's decoders raise struct.error, IndexError, …
        raise _pillow_error(name, error, limit) from None


def orientation_of(image: Image.Image, data: bytes | None = None) -> int:
    """Returns an image's EXIF orientation, 1 to 8; 1 if it has none or an invalid one.

    TIFF and HEIC count as 1, because their decoders rotate them. `data` is as in `exif_value`.
    """
    if image.format in _TURNED_BY_DECODER:
        return 1
    found = exif_value(image, _ORIENTATION, data)
    return found if isinstance(found, int) and found in _TURNS else 1


def exif_value(image: Image.Image, tag: int, data: bytes | None = None, block: int | None = None) -> Any:
    """Returns the value of an EXIF tag, of any type; None if the image has no such tag, or its EXIF is damaged.

    Args:
      image: an opened image.
      tag: number of the tag.
      data: content of the file: with it, a PNG without EXIF need not be decoded.
      block: tag of the block that has the tag, such as 0x8769 for EXIF's own; None for the main one.
    """
    if image.format == "PNG" and data is not None and not any(mark in data for mark in _PNG_MARKS):
        return None
    try:
        found = image.getexif()
        return (found if block is None else found.get_ifd(block)).get(tag)
    except Exception:  # a damaged EXIF block; the pixels may be intact
        return None


_PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Returns an upright image, given its EXIF orientation of 1 to 8."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


_lock = threading.Lock()
_users, _before = 0, Image.MAX_IMAGE_PIXELS


@contextmanager
def pillow_allows(megapixels: float) -> Iterator[None]:
    """Lifts Pillow's own size limit, one number for the whole process, while any thread is inside such a block.

    Pillow still refuses embedded images, such as the PNG of an icon, beyond twice the limit.
    """
    global _users, _before
    pixels = math.ceil(megapixels * 10**6)
    with _lock:
        if not _users:
            _before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        Image.MAX_IMAGE_PIXELS = max(pixels, Image.MAX_IMAGE_PIXELS or 0)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                Image.MAX_IMAGE_PIXELS = _before


def _check_size(image: Image.Image, name: str, limit: float) -> None:
    pixels = image.width * image.height
    if pixels > limit * 10**6:
        millions = pixels / 10**6
        found = f"{math.ceil(millions):,}" if millions >= 10 else f"{millions:.3g}"
        error = unreadable_picture(name, TOO_LARGE, f"{found} megapixels, more than the limit of {limit:g}")
        remedy = f"make it smaller, or set {MEGAPIXELS_VARIABLE}={math.ceil(millions)}"
        raise PictureError(f"{error}: {remedy}", error.kind, error.why)


def _pillow_error(name: str, error: Exception, limit: float) -> PictureError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        within = f"it holds more than twice the limit of {limit:g} megapixels"
        return unreadable_picture(name, TOO_LARGE, within)
    return unreadable_picture(name, UNDECODABLE, error)


def _identified(data: bytes) -> Image.Image | None:
    """Opens the image in the first format that accepts its bytes, like `Image.open` but without its warning."""
    stream, prefix = io.BytesIO(data), data[:16]
    for factory, accept in _openers():
        try:
            answer = accept is None or accept(prefix)
            if answer and not isinstance(answer, str):  # a string is the reason why the plugin cannot read it
                stream.seek(0)
                return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    return None


@functools.cache
def _openers() -> tuple[tuple[Callable[..., Image.Image], Callable[[bytes], bool | str] | None], ...]:
    """Returns (factory, test of the first bytes) of each format that is read, in Pillow's order, HEIC last."""
    Image.init()
    read: list[Any] = [Image.OPEN[name] for name in Image.ID if name in FORMATS]
    try:
        import pillow_heif
    except ImportError:
        return tuple(read)
    return (*read, (pillow_heif.HeifImageFile, _is_heic))


def _is_heic(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC_BRANDS


def _unidentified(data: bytes, name: str) -> PictureError:
    prefix = data[:16]
    if not data:
        return unreadable_picture(name, UNDECODABLE, "it is empty")
    for form, why in REFUSED.items():
        accept = Image.OPEN[form][1] if form in Image.OPEN else None
        if accept is not None and accept(prefix):
            return unreadable_picture(name, FOREIGN, f"{form} {why} and is not read")
    if _is_heic(prefix):
        try:
            import pillow_heif  # noqa: F401
        except ImportError:
            return unreadable_picture(name, FOREIGN, f"HEIC needs: {installing('pillow_heif')}")
    return unreadable_picture(name, UNDECODABLE, "no known image format")
