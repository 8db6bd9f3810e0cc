"""Reads members of zip archives as streams, with checks against damaged and malicious archives."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jclip.errors import JclipError
from jclip.io.inert_pickle import LIMIT
from jclip.io.tensors import read_blocks
from jclip.plain import shown

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra fields


class BoundedReader(io.BufferedReader):
    """File whose single reads are limited to `LIMIT` bytes, because a damaged length could ask for gigabytes."""

    def __init__(self, file: Path, size: int):
        super().__init__(io.FileIO(file))
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads `size` bytes, or all. Raises ValueError if more than `LIMIT` bytes are asked for."""
        if (self.size - self.tell() if size is None or size < 0 else size) > LIMIT:
            raise ValueError(f"a part is longer than {LIMIT >> 20} MiB")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Reads a line of at most `LIMIT` bytes."""
        return super().readline(LIMIT if size is None or size < 0 else min(size, LIMIT))


class Member:
    """Member of an archive, whose checksum is verified before its first byte is returned.

    Reads only the member's header from `handle`. `checked` is False if the archive has no checksums. Raises JclipError
    if the member is encrypted, or compressed with another method than deflate.
    """

    def __init__(self, file: Path, handle: BoundedReader, info: zipfile.ZipInfo, checked: bool):
        self.size, self._file, self._info, self._unchecked = info.file_size, file, info, checked
        self._what = f"{file}: {shown(info.filename)}"
        handle.seek(info.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(handle.read(_LOCAL_HEADER.size))
        self._start = info.header_offset + _LOCAL_HEADER.size + name + extra
        if signature != b"PK\x03\x04" or self._start + info.compress_size > handle.size:
            raise JclipError(f"{self._what} is not where the archive's directory says: fetch the file again")
        # Deflate compresses by a factor of at most 1032; a larger claimed size would fill the memory.
        possible = {
            zipfile.ZIP_STORED: self.size == info.compress_size,
            zipfile.ZIP_DEFLATED: self.size <= 1032 * (info.compress_size + 1),
        }
        if not possible.get(info.compress_type) or info.flag_bits & 1:
            raise JclipError(f"{self._what} is encrypted, or not compressed with deflate: save it again with torch")
        self._blocks = self._stored if info.compress_type == zipfile.ZIP_STORED else self._inflated

    def whole(self) -> bytes:
        """Returns the whole member, for pickles. Raises JclipError if it is damaged, or too long for a pickle."""
        if self.size > LIMIT:
            raise JclipError(f"{self._what} has more than {LIMIT >> 20} MiB, too long for a pickle: fetch it again")
        return b"".join(block.tobytes() for block in self.blocks(0, self.size))

    def blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yields the bytes from `start` to `stop` in blocks. Raises JclipError if any part of the member is damaged."""
        if self._unchecked:
            checksum = 0
            for block in self._blocks(0, self.size):
                checksum = zlib.crc32(block.data, checksum)
            if checksum != self._info.CRC:
                raise JclipError(f"{self._what} is damaged, its checksum does not match: fetch the file again")
            self._unchecked = False
        yield from self._blocks(start, stop)

    def _stored(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return read_blocks(self._file, self._start + start, self._start + stop)

    def _inflated(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yields bytes of a compressed member, held in memory. torch never compresses; repacked archives may be."""
        whole, filled, decoder = np.empty(self.size, np.uint8), 0, zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for block in read_blocks(self._file, self._start, self._start + self._info.compress_size):
                # One byte more than the claimed size, to notice a member that is too long.
                piece = decoder.decompress(block.data, self.size - filled + 1)
                whole[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
            if filled < self.size:
                raise ValueError("too short")
        except JclipError:
            raise
        except (zlib.error, ValueError):
            raise JclipError(f"{self._what} is damaged and cannot be decompressed: fetch the file again") from None
        yield whole[start:stop]


def members(file: Path, handle: BoundedReader) -> dict[str, zipfile.ZipInfo]:
    """Returns an archive's directory entries by name. Raises JclipError if it is truncated or has a bad name."""
    try:
        with zipfile.ZipFile(handle) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise JclipError(f"{file} is truncated or damaged ({error}): fetch it again") from None
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise JclipError(f"{file} has a member {shown(name)}, a path out of the archive: jclip does not read it")
        if name in found:
            raise JclipError(f"{file} has two members {shown(name)}: save it again with torch")
        found[name] = info
    return found
