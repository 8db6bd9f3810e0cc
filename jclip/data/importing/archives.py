"""Reads archives sequentially, and unpacks them once, never outside their folder."""

import bz2
import contextlib
import errno
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, NamedTuple, cast

from jclip.errors import JclipError
from jclip.io.reading import open_regular
from jclip.units import format_size

# The name is also a folder's, or is too long.
_IMPOSSIBLE = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
PACKED = 100
"""Maximum ratio of unpacked to packed size, beyond a gigabyte; images hardly compress."""

_ALWAYS = 1 << 30  # bytes that any archive may unpack to
LARGEST_HEADER = 4 << 20
"""Maximum number of bytes of a member's header in a tar."""
_CHUNK = 1 << 20
ENDS = (".zip", ".tar.gz", ".tgz", ".tar")
"""Extensions of the archives that can be read."""


def unpack_once(file: Path, workspace: Path, only: str = "") -> Path:
    """Unpacks an archive into a folder of the workspace, and returns that folder; returns any other path unchanged.

    The workspace is on the destination's disk, which needs the space. Unpacks the files named `only`, or all if it is
    empty. Raises JclipError if the archive is damaged or incomplete, has no such file, or would write outside its
    folder.
    """
    if file.is_dir() or not file.name.endswith(ENDS):
        return file
    whole = workspace / "unpacked" / file.name
    if whole.is_dir():
        return whole
    partial = whole.with_name(f"{file.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    room = min(max(_ALWAYS, PACKED * file.stat().st_size), shutil.disk_usage(partial).free)
    with reporting_damage(file):
        for name, stream in _members(file, only):
            path = PurePosixPath(name.replace("\\", "/"))
            if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise JclipError(f"{file} has {name[:200]!r}, a path out of the archive: refusing to unpack it")
            place = partial.joinpath(*path.parts)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                out = place.open("wb")
            except OSError as error:
                if error.errno not in _IMPOSSIBLE:
                    raise
                raise JclipError(
                    f"{file} has {name[:200]!r}, which cannot be written beside the other files ({error.strerror}): "
                    "fetch it again, or unpack it yourself"
                ) from None
            with out:
                while data := stream.read(_CHUNK):
                    room -= len(data)
                    if room < 0:
                        raise JclipError(
                            f"{file} unpacks to more than {PACKED} times its size, or does not fit on the disk: free "
                            "some space, or unpack what you need yourself"
                        )
                    out.write(data)
    if not any(partial.iterdir()):
        raise JclipError(f"{file} {f'has no {only}' if only else 'is empty'}: fetch it again")
    partial.rename(whole)
    return whole


def _members(file: Path, only: str) -> Iterator[tuple[str, IO[bytes]]]:
    if not file.name.endswith(".zip"):
        for name, _, stream in read_tar(file):
            if stream is not None and (PurePosixPath(name).name == only or not only):
                yield name, stream
        return
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir() and (PurePosixPath(info.filename).name == only or not only):
                try:
                    stream = archive.open(info)
                except (NotImplementedError, RuntimeError) as error:  # another compression, or a password
                    raise JclipError(f"{file}, {info.filename}: {error}: unpack the archive yourself") from None
                with stream:
                    yield info.filename, stream


@contextlib.contextmanager
def reporting_damage(file: Path) -> Iterator[None]:
    """Turns errors that reading a damaged or incomplete archive raises into a JclipError of one line."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise JclipError(f"{file} is damaged or incomplete ({error}): fetch it again") from None


class Member(NamedTuple):
    """Member of a tar that is not a folder; `stream` is None for a link or a device."""

    name: str
    size: int
    stream: IO[bytes] | None


def read_tar(file: Path) -> Generator[Member, None, None]:
    """Yields the members of a tar in order; it may be compressed.

    Read a member's contents before the next member, or not at all. Memory does not grow with the size or number of the
    members. `reporting_damage` reports damage.
    """
    with open_regular(file) as packed:
        tail = _Tail(unpacked(packed))
        tail.allowance = LARGEST_HEADER
        with tarfile.open(fileobj=cast(BinaryIO, tail), mode="r|") as tar:
            while (info := _next(tar, tail)) is not None:
                # Members of a type that tarfile does not know have contents, too.
                known = info.type in tarfile.SUPPORTED_TYPES
                stream = tar.extractfile(info) if info.isreg() or not known else None
                if not info.isdir():
                    yield Member(info.name, info.size, stream if known else None)
                if stream is not None:
                    while stream.read(_CHUNK):
                        pass
                    if stream.tell() != info.size:
                        raise tarfile.ReadError("it ends within a file")
        # tarfile treats a truncated header as the end.
        while tail.read(1 << 20):
            pass
        if tail.last.strip(b"\0"):
            raise tarfile.ReadError("it has no end")


def _next(tar: tarfile.TarFile, tail: "_Tail") -> tarfile.TarInfo | None:
    tail.allowance = LARGEST_HEADER
    info = tar.next()
    tail.allowance = None
    tar.members.clear()  # type: ignore[attr-defined]  # otherwise it would keep all names
    return info


class _Tail:
    """Stream that remembers its `last` block, which is zeros in a complete tar; `allowance` limits the next bytes."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.last = b"?"
        self.allowance: int | None = None

    def read(self, size: int) -> bytes:
        if self.allowance is not None:
            self.allowance -= size
            if self.allowance < 0:  # a name, or a table of a sparse file, that would fill the memory
                raise tarfile.ReadError(f"a header of more than {format_size(LARGEST_HEADER)}")
        data = self._stream.read(size)
        self.last = (self.last + data)[-tarfile.BLOCKSIZE :]
        return data


def unpacked(stream: BinaryIO) -> BinaryIO:
    """Returns a stream of the decompressed content of a file; the same stream if it is not compressed."""
    magic = stream.read(6)
    stream.seek(0)
    for mark, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
        if magic.startswith(mark):
            return cast(BinaryIO, module.open(stream))
    return stream
