"""Members of a zip archive as streams of bytes that have been checked, out of files that may be damaged or worse."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jclip.errors import JclipError
from jclip.io.inert_pickle import LIMIT
from jclip.io.tensors import read_blocks, shown

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, and the lengths of the name and of the extras that follow


class Careful(io.BufferedReader):
    """A file that gives no more in one read than may be held in memory: a damaged length must not become gigabytes."""

    def __init__(self, file: Path, size: int):
        super().__init__(io.FileIO(file))
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file does.

        Raises:
          ValueError: that would be more than `LIMIT`.
        """
        if (self.size - self.tell() if size is None or size < 0 else size) > LIMIT:
            raise ValueError(f"a part is longer than {LIMIT >> 20} MiB")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As a file does, but no more than `LIMIT`."""
        return super().readline(LIMIT if size is None or size < 0 else min(size, LIMIT))


class Member:
    """A member of an archive; its checksum is compared before its first byte is given away.

    Args:
      handle: the open archive; only its directory entry is looked at now.
      checked: False where the archive has no checksums.

    Raises:
      JclipError: it is encrypted, or compressed in another way than deflate.
    """

    def __init__(self, file: Path, handle: Careful, info: zipfile.ZipInfo, checked: bool):
        self.size, self._file, self._info, self._unchecked = info.file_size, file, info, checked
        self._what = f"{file}: {shown(info.filename)}"
        handle.seek(info.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(handle.read(_LOCAL_HEADER.size))
        self._start = info.header_offset + _LOCAL_HEADER.size + name + extra
        if signature != b"PK\x03\x04" or self._start + info.compress_size > handle.size:
            raise JclipError(f"{self._what} is not where the archive's directory says: fetch the file again")
        # Nothing is deflated to less than a 1032nd; what claims to be would fill the memory.
        possible = {
            zipfile.ZIP_STORED: self.size == info.compress_size,
            zipfile.ZIP_DEFLATED: self.size <= 1032 * (info.compress_size + 1),
        }
        if not possible.get(info.compress_type) or info.flag_bits & 1:
            raise JclipError(
                f"{self._what} is encrypted or compressed as torch does not: save the file again with torch"
            )
        self._blocks = self._stored if info.compress_type == zipfile.ZIP_STORED else self._inflated

    def whole(self) -> bytes:
        """All of it: for pickles, not for storages.

        Raises:
          JclipError: it is damaged, or too long to be one.
        """
        if self.size > LIMIT:
            raise JclipError(f"{self._what} is longer than {LIMIT >> 20} MiB: no checkpoint of tensors needs that")
        return b"".join(block.tobytes() for block in self.blocks(0, self.size))

    def blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The bytes from `start` up to `stop`, as `read_blocks` gives them.

        Raises:
          JclipError: the member is damaged, be it outside of these bytes.
        """
        if self._unchecked:
            checksum = 0
            for block in self._blocks(0, self.size):
                checksum = zlib.crc32(block.data, checksum)
            if checksum != self._info.CRC:
                raise JclipError(
                    f"{self._what} is damaged, its bytes are not those of its checksum: fetch the file again"
                )
            self._unchecked = False
        yield from self._blocks(start, stop)

    def _stored(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return read_blocks(self._file, self._start + start, self._start + stop)

    def _inflated(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """torch deflates no storage, but an archive that was packed again is a checkpoint still. It is held whole."""
        whole, filled, decoder = np.empty(self.size, np.uint8), 0, zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for block in read_blocks(self._file, self._start, self._start + self._info.compress_size):
                piece = decoder.decompress(block.data, self.size - filled + 1)  # one more tells that there is more
                whole[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
            if filled < self.size:
                raise ValueError("too short")
        except JclipError:
            raise
        except (zlib.error, ValueError):
            raise JclipError(f"{self._what} is damaged, it cannot be inflated: fetch the file again") from None
        yield whole[start:stop]


def members(file: Path, handle: Careful) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive, by name.

    Raises:
      JclipError: it is truncated; a name is there twice, or is a path that leads out of the archive.
    """
    try:
        with zipfile.ZipFile(handle) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise JclipError(f"{file} is truncated or damaged ({error}): fetch it again") from None
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise JclipError(f"{file} has a member {shown(name)}, a path out of the archive: refusing to read it")
        if name in found:
            raise JclipError(f"{file} has two members {shown(name)}: refusing to choose")
        found[name] = info
    return found
