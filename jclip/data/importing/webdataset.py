"""webdataset tars: members KEY.jpg (or .png, .webp, …) and KEY.txt or KEY.json with the caption, next to each other.

A tar is read from its beginning to its end, compressed or not, and becomes one shard.
"""

import bz2
import contextlib
import gzip
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from jclip.data.images import PICTURES
from jclip.data.importing.parts import UNCAPTIONED, UNPICTURED, Found, Lost, Part, Reader, Reading
from jclip.data.kinds import PAIRS, StoredPair
from jclip.errors import JclipError

_CAPTION = "caption"
_LARGEST = 1 << 30  # bytes of a member; a picture of more is a mistake, or an attack
_PER_TAR = 1 << 40  # ids of one tar's pictures do not reach those of the next


@dataclass(frozen=True)
class TarReader(Reader):
    """Tars, in the order of their names.

    Attributes:
      split: that they become.
      caption: the key of JSON members; None for KEY.txt first, and then "caption".
      language: of the captions.
    """

    split: str = "train"
    caption: str | None = None
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """See `Reader`: a tar each, for a tar is not read from its middle."""
        return [_Part(self.split, file, number, self.caption, self.language) for number, file in enumerate(self.files)]


def open_tars(source: Path, reading: Reading) -> TarReader:
    """Opens a tar, or all of a folder or of a pattern with * and ?.

    Raises:
      JclipError: there is none.
    """
    if source.is_file():
        files = [source]
    elif source.is_dir():
        files = sorted(file for end in ("tar", "tar.gz", "tgz") for file in source.glob(f"*.{end}"))
    else:
        files = sorted(source.parent.glob(source.name))
    if not files:
        raise JclipError(f"{source} names no tar: name one, or a folder of .tar files, or a pattern in quotes")
    return TarReader(PAIRS, tuple(files), False, (), reading.split(), reading.caption, reading.language or "")


@dataclass(frozen=True)
class _Part:
    split: str
    file: Path
    number: int
    caption: str | None
    language: str

    def records(self) -> Iterator[Found | Lost]:
        for count, (key, members) in enumerate(_samples(self.file)):
            place = f"{self.file.name}, {key}"
            picture = next((members[end] for end in PICTURES if end in members), None)
            if picture is None:
                yield Lost(place, UNPICTURED)
                continue
            caption = self._caption(members, place)
            if caption is None:
                yield Lost(place, UNCAPTIONED)
                continue
            number = self.number * _PER_TAR + count
            yield Found(place, StoredPair(picture, (caption,), number, number, (number,), (self.language,)))

    def _caption(self, members: dict[str, bytes], place: str) -> str | None:
        try:
            if "txt" in members and self.caption is None:
                return members["txt"].decode("utf-8")
            if "json" not in members:
                return None
            fields: Any = json.loads(members["json"])
            caption = fields.get(self.caption or _CAPTION) if isinstance(fields, dict) else None
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            return None
        return caption if isinstance(caption, str) else None


def _samples(file: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, contents by suffix) of members with one key that stand together."""
    key = ""
    members: dict[str, bytes] = {}
    with said_as_damage(file):
        for name, size, stream in read_tar(file):
            if size > _LARGEST:
                raise JclipError(f"{file}, {name}: a file of {size} bytes is no picture: take it out")
            path, data = PurePosixPath(name), stream.read()
            stem, _, suffix = path.name.partition(".")
            if not stem or stem.startswith("__"):
                continue
            this = str(path.parent / stem)
            if this != key and members:
                yield key, members
                members = {}
            key = this
            members[suffix.lower()] = data
    if members:
        yield key, members


@contextlib.contextmanager
def said_as_damage(file: Path) -> Iterator[None]:
    """What goes wrong inside in reading an archive, said in a line.

    Raises:
      JclipError: it is damaged, or not whole.
    """
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise JclipError(f"{file} is damaged or not whole ({error}): fetch it again") from None


def read_tar(file: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(name, size, contents) of a tar's files, from its beginning to its end; it may be compressed.

    Contents are read before the next file is asked for. What is damaged is an error of `said_as_damage`.
    """
    with file.open("rb") as packed:
        tail = _Tail(_unpacked(packed))
        with tarfile.open(fileobj=cast(BinaryIO, tail), mode="r|") as tar:
            for info in tar:
                stream = tar.extractfile(info) if info.isreg() else None
                if stream is not None:
                    yield info.name, info.size, stream
                    if stream.tell() != info.size:
                        raise tarfile.ReadError("it ends within a file")
        # tarfile takes a header that is cut off for the end.
        while tail.read(1 << 20):
            pass
        if tail.last.strip(b"\0"):
            raise tarfile.ReadError("it has no end")


class _Tail:
    """A stream that remembers the last block of what was read: in a whole tar it is zeros."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.last = b"?"

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.last = (self.last + data)[-tarfile.BLOCKSIZE :]
        return data


def _unpacked(stream: BinaryIO) -> BinaryIO:
    magic = stream.read(6)
    stream.seek(0)
    for mark, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
        if magic.startswith(mark):
            return cast(BinaryIO, module.open(stream))
    return stream
