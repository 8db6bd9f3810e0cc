"""Reads and decodes images of an index, in any process: content hash, facts, and pixels for the model.

This module imports neither jax nor the models, so that worker processes start fast.
"""

import hashlib
import os
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jclip.errors import JclipError, first_line
from jclip.images.opening import (
    NO_FILE,
    UNDECODABLE,
    PictureError,
    exif_value,
    open_header,
    orientation_of,
    read_picture,
    unreadable_picture,
)
from jclip.images.preprocess import Preprocessing, to_array
from jclip.io.reading import LARGEST_PICTURE, open_regular
from jclip.search.sources.items import Content

_EXIF, _TAKEN, _CHANGED, _CAMERA = 0x8769, 0x9003, 0x0132, 0x0110
_TAKEN_ZONE, _CHANGED_ZONE = 0x9011, 0x9010
_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_ZONE = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
_LONGEST_CAMERA = 100  # characters
_FIRST_YEAR = 1826  # of photography


class Trouble(NamedTuple):
    """Reason why an image is skipped: its kind, and details."""

    reason: str
    detail: str


@dataclass
class Read:
    """Image whose content is read, and whose header is valid.

    Attributes:
      hash: BLAKE2b digest of the content, 16 bytes.
      width, height: pixels, after rotation.
      date: time according to the camera, seconds since 1970; None if it has none.
      facts: format, and camera if known.
      pixels: uint8 (size, size, 3); None if not asked for.
    """

    hash: bytes
    width: int
    height: int
    date: int | None
    facts: dict[str, str]
    pixels: np.ndarray | None = field(default=None, repr=False)


def content_hash(data: bytes) -> bytes:
    """Returns the hash of an image's or a text's content."""
    return hashlib.blake2b(data, digest_size=16).digest()


def bytes_of(content: Content) -> bytes:
    """Returns an image's encoded bytes. Raises PictureError if it cannot be read."""
    if isinstance(content, bytes):
        return content
    name = os.fsdecode(content.file)
    if content.offset is None or content.size is None:
        return read_picture(name)
    if content.size > LARGEST_PICTURE:
        raise unreadable_picture(name, NO_FILE, f"it has more than {LARGEST_PICTURE} bytes")
    try:
        with open_regular(Path(name)) as stream:
            stream.seek(content.offset)
            data = stream.read(content.size)
    except (OSError, JclipError) as error:
        raise unreadable_picture(name, UNDECODABLE, error) from None
    if len(data) != content.size:
        raise unreadable_picture(name, UNDECODABLE, "it ends within the image")
    return data


class Decoder:
    """Decoder of images in two steps, so that an image whose content is known is not decoded.

    Args:
      preprocessing: the model's, with the orientation of the index.
    """

    def __init__(self, preprocessing: Preprocessing):
        self._preprocessing = preprocessing
        self._images: list[Image.Image | None] = []

    def read(self, contents: list[Content]) -> list[Read | Trouble]:
        """Reads images, and checks their headers."""
        self._images = [None] * len(contents)
        return [_tried(self._read, number, content) for number, content in enumerate(contents)]

    def decode(self, numbers: list[int]) -> list[np.ndarray | Trouble]:
        """Returns pixels, uint8 (size, size, 3), of images of the last call of `read`."""
        return [_tried(self._pixels, number) for number in numbers]

    def _read(self, number: int, content: Content) -> Read:
        data = bytes_of(content)
        image = self._images[number] = open_header(data, "")
        width, height = image.size
        if self._preprocessing.orientation == "apply" and orientation_of(image, data) >= 5:
            width, height = height, width
        facts = {"format": image.format or ""}
        camera = exif_value(image, _CAMERA, data)
        if isinstance(camera, str) and (camera := camera.strip("\0 ")[:_LONGEST_CAMERA]):
            facts["camera"] = camera
        date = _seconds(exif_value(image, _TAKEN, data, _EXIF), exif_value(image, _TAKEN_ZONE, data, _EXIF))
        if date is None:
            date = _seconds(exif_value(image, _CHANGED, data), exif_value(image, _CHANGED_ZONE, data, _EXIF))
        return Read(content_hash(data), width, height, date, facts)

    def _pixels(self, number: int) -> np.ndarray:
        image = self._images[number]
        assert image is not None, "read without trouble"
        self._images[number] = None
        return to_array(self._preprocessing, image, "it")


def _tried(function: Any, *arguments: Any) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about odd metadata, possibly millions
            return function(*arguments)
    except PictureError as error:
        return Trouble(error.kind, error.why)
    except Exception as error:  # whatever a damaged image makes Pillow raise while it is resized
        return Trouble(UNDECODABLE, first_line(error))


def _seconds(time: object, zone: object) -> int | None:
    """Returns seconds since 1970 of an EXIF time; None if it is not a time. Without a valid zone it is local time."""
    match = _TIME.match(time) if isinstance(time, str) else None
    if match is None:
        return None
    offset = _ZONE.match(zone) if isinstance(zone, str) else None
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        found = datetime(year, month, day, hour, minute, min(second, 59))  # 60 is a leap second
        if offset is not None:
            shift = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
            found = found.replace(tzinfo=timezone(-shift if offset[1] == "-" else shift))
        seconds = int(found.timestamp())
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if found.year >= _FIRST_YEAR else None
