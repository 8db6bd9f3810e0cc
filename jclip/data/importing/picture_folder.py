"""Folders of images with captions, and sub-folders: KEY.jpg beside KEY.txt or KEY.json, or file names as captions.

A caption file has the image's name, with or without its extension: cat.v2.jpg goes with cat.v2.txt, cat.v2.json or
cat.v2.jpg.txt, see `pairing`. JSON is an object with a caption, or a list of captions, in one field. `img2dataset`
(--output_format files) and many labelling programs write such folders.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jclip.data.importing.encodings import decoded, find_encoding
from jclip.data.importing.pairing import JSON, TEXTS, UNKNOWN, pair
from jclip.data.importing.parts import UNCAPTIONED, Beside, Found, Lost, Part, Reader, Reading, cut
from jclip.data.sources.class_files import NO_FILE
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError, unreadable
from jclip.images.preprocess import is_picture_name
from jclip.io.json_files import decode
from jclip.io.reading import LARGEST_PICTURE, Refused, files_under, is_hidden, read_regular

FILES, NAMES = "files", "names"
CAPTIONS = (FILES, NAMES)
"""Sources of captions: files beside the images, or the images' names."""

_HIDDEN = "hidden file, or one of the system (such as .DS_Store)"
_NO_CAPTION = "the caption file holds no caption"
_NAME_NOT_CAPTION = "the image's name is not a caption"
_LARGEST_TEXT = 1 << 20  # bytes

_COUNTER = re.compile(r"(?:[\s_\-]+\d+|\s*[(（]\s*\d+\s*[)）]|\s*-\s*(?:copy|副本))$", re.IGNORECASE)
_CAMERAS = re.compile(
    r"(?:img|dsc|dscn|dscf|pxl|mvimg|image|photo|pic|picture|screenshot|wechat ?image|mmexport|微信图片|图片|照片|截图|"
    r"屏幕截图)?[\W\d]*",
    re.IGNORECASE,
)


class FileItem(NamedTuple):
    """Image with its caption file, or a file that is left out.

    Attributes:
      file: the image, or the file that is left out; relative to the folder.
      caption: caption file; None for names as captions.
      reason: reason why it is left out; empty if it is not.
      beside: True if the file is not data, so that leaving it out is not a fault.
    """

    file: str
    caption: str | None = None
    reason: str = ""
    beside: bool = False

    @property
    def entries(self) -> int:
        """Number of files: the image and its caption, or one."""
        return 1 if self.caption is None else 2


@dataclass(frozen=True)
class FolderReader(Reader):
    """Reader of a folder of images.

    Attributes:
      field: JSON field with the caption.
      encoding: encoding of the captions; None to detect it.
      items: all files; hidden ones and the system's last.
    """

    folder: Path = Path()
    split: str = "train"
    field: str = "caption"
    language: str = ""
    encoding: str | None = None
    items: tuple[FileItem, ...] = ()

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        sizes = np.array([(self.folder / item.file).lstat().st_size for item in self.items], np.int64)
        return [_Part(self.split, self, self.items[start:stop]) for start, stop in cut(sizes, shard_bytes)]

    def read_as(self, workspace: Path) -> tuple[str, ...]:
        """Describes how the source was read, see `Reader`."""
        names = any(not item.reason and item.caption is None for item in self.items)
        return ("captions from the images' names" if names else "captions from the files beside the images",)


def open_picture_folder(source: Path, reading: Reading) -> FolderReader:
    """Opens a folder of images. Raises JclipError if it has no images, or no captions."""
    if not source.is_dir():
        raise JclipError(f"{source} is not a folder: name one with images")
    if reading.captions_from not in (None, *CAPTIONS):
        raise JclipError(f"--captions-from {reading.captions_from} is not possible: give {' or '.join(CAPTIONS)}")
    files, hidden = walk(source)
    names = reading.captions_from == NAMES
    captions = (*JSON, *TEXTS) if reading.caption else (*TEXTS, *JSON)
    items = _named(files) if names else _paired(files, captions)
    if not any(not item.reason or item.reason == UNCAPTIONED for item in items):
        raise JclipError(f"{source} has no images: name a folder that has some")
    if all(item.reason for item in items):
        raise JclipError(f"{source}: {no_captions(files)}")
    return FolderReader(
        PAIRS,
        (source,),
        folder=source,
        split=reading.split(),
        field=reading.caption or "caption",
        language=reading.language or "",
        encoding=reading.encoding,
        items=(*items, *(FileItem(file, None, _HIDDEN, beside=True) for file in hidden)),
    )


def walk(folder: Path, most: int | None = None) -> tuple[list[str], list[str]]:
    """Returns the files below a folder, in order and relative to it, at most `most`; then the hidden ones.

    Raises JclipError if a folder cannot be listed.
    """
    files: list[str] = []
    hidden: list[str] = []
    for file in files_under(folder):
        path = file.relative_to(folder)
        (hidden if any(map(is_hidden, path.parts)) else files).append(str(path))
        if most is not None and len(files) >= most:
            break
    return files, hidden


def no_captions(files: Sequence[str]) -> str:
    """Returns a message about images without captions beside them, and what to do with them."""
    pictures = [Path(file) for file in files if is_picture_name(file)]
    classes = Counter(file.parts[0] for file in pictures if len(file.parts) > 1)
    names = f"--captions-from {NAMES} takes the images' names as captions"
    if len(classes) > 1 and sum(classes.values()) == len(pictures):
        some = ", ".join(map(repr, list(classes)[:3]))
        return (
            f"it has {len(pictures):,} images in {len(classes):,} folders ({some}, …) and no captions: format "
            f"class-folders takes the folders as classes; format picture-folder with {names}"
        )
    return f"it has {len(pictures):,} images and no captions beside them (KEY.txt or KEY.json): {names}"


def has_captions_beside(files: Iterable[str]) -> bool:
    """Returns True if the files have at least one image with its caption file."""
    return any(item.caption is not None for item in _paired(files, (*TEXTS, *JSON)))


def _paired(files: Iterable[str], captions: Sequence[str]) -> list[FileItem]:
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(os.path.dirname(file), []).append(file)
    items: list[FileItem] = []
    for mine in folders.values():
        found = pair([os.path.basename(file) for file in mine], captions)
        items += (FileItem(mine[one.picture], mine[one.caption]) for one in found.pairs)
        left = found.lost | found.beside
        items += (
            FileItem(mine[number], None, reason, beside=number in found.beside or reason == UNKNOWN)
            for number, reason in left.items()
        )
    return sorted(items, key=lambda item: Path(item.file).parts)


def _named(files: Sequence[str]) -> list[FileItem]:
    return [FileItem(file) if is_picture_name(file) else FileItem(file, None, UNKNOWN, beside=True) for file in files]


def caption_of(name: str) -> str:
    """Returns an image's file name as a caption; empty if it does not describe the image.

    Drops the extension, then counters at the end: a number after a space, "_" or "-", a number in brackets, "- Copy",
    "- 副本". Each "_" becomes a space. Names of only digits, and names that cameras and phones give, describe nothing.

    >>> [caption_of(name) for name in ("猫.jpg", "猫 (2).jpg", "猫_01.png", "red_car - Copy.png", "F16.jpg")]
    ['猫', '猫', '猫', 'red car', 'F16']
    >>> [caption_of(name) for name in ("IMG_2207.jpg", "001.png", "微信图片_20240101.jpg")]
    ['', '', '']
    """
    stem = unicodedata.normalize("NFC", name.rpartition(".")[0]).strip()
    while (shorter := _COUNTER.sub("", stem).strip()) != stem:
        stem = shorter
    return "" if _CAMERAS.fullmatch(stem) else re.sub(r"[\s_]+", " ", stem).strip()


@dataclass(frozen=True)
class _Part:
    split: str
    reader: FolderReader
    items: tuple[FileItem, ...]

    def records(self) -> Iterator[Found | Lost | Beside]:
        for item in self.items:
            if item.beside:
                yield Beside(item.file, item.reason)
                continue
            captions = self._captions(item)
            if isinstance(captions, str):
                yield Lost(item.file, captions, entries=item.entries)
                continue
            try:
                image = read_regular(self.reader.folder / item.file, LARGEST_PICTURE)
            except Refused as error:
                yield Lost(item.file, error.reason, len(captions), item.entries)
                continue
            except FileNotFoundError:
                yield Lost(item.file, NO_FILE, len(captions), item.entries)
                continue
            except OSError as error:
                raise unreadable(self.reader.folder / item.file, error) from None
            yield Found(item.file, StoredPair(image, captions, (self.reader.language,) * len(captions)), item.entries)

    def _captions(self, item: FileItem) -> tuple[str, ...] | str:
        """Returns the captions of an image, or the reason why it has none."""
        if item.reason:
            return item.reason
        if item.caption is None:
            caption = caption_of(Path(item.file).name)
            return (caption,) if caption else _NAME_NOT_CAPTION
        file = self.reader.folder / item.caption
        try:
            data = read_regular(file, _LARGEST_TEXT)
        except (Refused, FileNotFoundError):
            return _NO_CAPTION
        try:
            text = decoded(data, find_encoding(data, "the caption file", self.reader.encoding))
        except (JclipError, UnicodeDecodeError):
            return "the caption file cannot be decoded as text"
        if item.caption.rpartition(".")[2].lower() in JSON:
            return self._field(text)
        return (text.strip(),) if text.strip() else _NO_CAPTION

    def _field(self, text: str) -> tuple[str, ...] | str:
        try:
            found = decode(text)
        except ValueError:
            return _NO_CAPTION
        value = found.get(self.reader.field) if isinstance(found, dict) else None
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str) for each in values):
            return _NO_CAPTION
        return tuple(values)
