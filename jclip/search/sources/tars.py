"""Tars as containers: images are read from the archive, which is never unpacked to the disk.

As in webdataset and img2dataset, KEY.txt beside KEY.jpg is the image's caption, and KEY.json has facts about it.
"""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, ClassVar, cast

from jclip.data.importing.archives import LARGEST_HEADER, reporting_damage, unpacked
from jclip.errors import JclipError
from jclip.images.opening import FOREIGN, NO_FILE, TOO_LARGE, UNDECODABLE, is_picture_name
from jclip.io.json_files import decode
from jclip.io.reading import LARGEST_PICTURE, is_hidden, open_regular
from jclip.io.reading import TOO_LARGE as TOO_LARGE_FILE
from jclip.search.sources.items import OTHER_FORMATS, Container, Content, Item, Lost, Part, Reader, is_fact

_ENDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CAPTIONS, _FACTS = "txt", "json"
_LARGEST_BESIDE = 1 << 16  # bytes of a caption or of facts
_MOST_FACTS = 50


class Tar(Container):
    """Tar, also a compressed one, which is read in order and thus slower."""

    kind: ClassVar[str] = "tar"

    @staticmethod
    def recognises(place: Path) -> bool:
        """Returns True for the name of a tar."""
        return place.name.lower().endswith(_ENDS)

    def items(self) -> Iterator[Item | Lost]:
        """Yields its images. Damage ends them, and is `Lost` under the path of the tar."""
        stamp = self.stamp()
        try:
            with reporting_damage(self.place), open_regular(self.place) as packed:
                yield from self._items(stamp, cast(BinaryIO, _Stream(unpacked(packed))))
        except JclipError as error:
            yield Lost(os.fsencode(self.place), UNDECODABLE, str(error))

    def _items(self, stamp: bytes, stream: BinaryIO) -> Iterator[Item | Lost]:
        waiting: list[Item] = []
        key, beside = "", _Beside()
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # otherwise it would keep all of them
                name = info.name
                if info.isdir() or any(map(is_hidden, PurePosixPath(name).parts)):
                    continue
                if key != (key := name[: len(name) - len(PurePosixPath(name).name)] + _stem(name)):
                    yield from map(beside.added, waiting)
                    waiting, beside = [], _Beside()
                ending = name.rpartition(".")[2].lower()
                if is_picture_name(name):
                    if trouble := _trouble(info):
                        yield Lost(self._path(name), *trouble)
                    else:
                        waiting.append(self._item(info, stamp))
                elif ending in OTHER_FORMATS:
                    yield Lost(self._path(name), FOREIGN, f".{ending} files are not read")
                elif ending in (_CAPTIONS, _FACTS) and info.isreg() and info.size <= _LARGEST_BESIDE:
                    stream.seek(info.offset_data)
                    beside.note(ending, stream.read(info.size))
            yield from map(beside.added, waiting)
            stream.seek(tar.offset)
            if not stream.read(1):
                raise tarfile.ReadError("it has no end")

    def _item(self, info: tarfile.TarInfo, stamp: bytes) -> Item:
        time = int(info.mtime * 10**9) if 0 < info.mtime < 2**33 else None
        container = self.kind, os.fsencode(self.place)
        return Item(
            self._path(info.name), stamp, size=info.size, mtime_ns=time, position=info.offset_data, container=container
        )

    def _path(self, name: str) -> bytes:
        return self.member(name.replace("\0", "\\0"))

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yields the reader of its images. Those of a compressed tar are read here, others by whoever decodes them."""
        with open_regular(self.place) as packed:
            stream = unpacked(packed)

            def content(position: int, size: int) -> Content:
                if stream is packed:
                    return Part(os.fsencode(self.place), position, size)
                with reporting_damage(self.place):
                    stream.seek(position)
                    return stream.read(size)

            yield content


class _Stream:
    """Stream that refuses to read much at once: a name, or a table of a sparse file, that would fill the memory."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int) -> bytes:
        if size > LARGEST_HEADER:
            raise tarfile.ReadError("it has a header that is too large")
        return self._stream.read(size)


class _Beside:
    """Caption and facts of the images of one key."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._meta: dict[str, Any] = {}

    def note(self, ending: str, data: bytes) -> None:
        """Notes a caption or facts; ignores what cannot be read."""
        try:
            if ending == _CAPTIONS:
                self._text = data.decode("utf-8-sig").strip() or None
            elif isinstance(found := decode(data), dict):
                self._meta = dict([each for each in found.items() if is_fact(*each)][:_MOST_FACTS])
        except ValueError:
            return

    def added(self, item: Item) -> Item:
        """Returns an item with its caption and facts."""
        return replace(item, text=self._text, meta=self._meta)


def _stem(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[0]


def _trouble(info: tarfile.TarInfo) -> tuple[str, str] | None:
    """Returns the kind and details of the trouble with a member that is called like an image; None if there is none."""
    if not info.isreg():
        return NO_FILE, "it is a link or a device in the tar"
    if info.issparse():
        return NO_FILE, "it is a sparse file in the tar"
    return (TOO_LARGE, f"it is {TOO_LARGE_FILE}") if info.size > LARGEST_PICTURE else None
