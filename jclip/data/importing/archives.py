"""Archives: read from their beginning to their end, and unpacked once, never past the folder they belong in."""

import bz2
import contextlib
import errno
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from jclip.errors import JclipError

# A name is that of a folder too, or too long.
_IMPOSSIBLE = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
ENDS = (".zip", ".tar.gz", ".tgz", ".tar")
"""Of the archives that can be read."""


def unpacked(file: Path, workspace: Path, only: str = "") -> Path:
    """What an archive holds, in a folder of the workspace, which is beside the destination and needs the room for it.

    A folder, or another file, is itself.

    Args:
      file: the archive.
      workspace: where its folder lies.
      only: unpack the files of that name alone; all when empty.

    Raises:
      JclipError: it is damaged or not whole, has no such file, or would write past its folder.
    """
    if file.is_dir() or not file.name.endswith(ENDS):
        return file
    whole = workspace / "unpacked" / file.name
    if whole.is_dir():
        return whole
    partial = whole.with_name(f"{file.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    with said_as_damage(file):
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
                    f"{file} has {name[:200]!r}, which cannot be written beside the rest ({error.strerror}): fetch it "
                    "again, or unpack it yourself"
                ) from None
            with out:
                shutil.copyfileobj(stream, out, 1 << 20)
    if not partial.exists():
        raise JclipError(f"{file} {f'has no {only}' if only else 'is empty'}: fetch it again")
    partial.rename(whole)
    return whole


def _members(file: Path, only: str) -> Iterator[tuple[str, IO[bytes]]]:
    if not file.name.endswith(".zip"):
        for name, _, stream in read_tar(file):
            if PurePosixPath(name).name == only or not only:
                yield name, stream
        return
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir() and (PurePosixPath(info.filename).name == only or not only):
                try:
                    stream = archive.open(info)
                except (NotImplementedError, RuntimeError) as error:  # another compression, or a password
                    raise JclipError(
                        f"{file}, {info.filename}: {error}: unpack it yourself, beside the archive"
                    ) from None
                with stream:
                    yield info.filename, stream


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
