"""Reads lines of text files from any position, and reports faulty lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jclip.errors import JclipError, unreadable
from jclip.io.json_files import decode
from jclip.io.reading import LARGEST_PICTURE, open_regular
from jclip.units import format_size

LONGEST_TEXT = 16 << 20
"""Maximum number of bytes of a line of text; longer ones are truncated."""

LONGEST_PICTURE = LARGEST_PICTURE // 3 * 4 + 64
"""Maximum number of bytes of a line with an image in base64."""

_CHUNK = 1 << 16


class Line(NamedTuple):
    """Line of a file.

    Attributes:
      number: line number, from 1.
      offset: offset of its first byte.
      data: its bytes, without the line end; truncated if it is too long.
      whole: False if `data` is truncated.
    """

    number: int
    offset: int
    data: bytes
    whole: bool = True


def scan(
    file: Path, offset: int = 0, number: int = 1, lines: int | None = None, longest: int = LONGEST_TEXT
) -> Iterator[Line]:
    """Yields a file's lines that are not blank. Raises JclipError if it is not a regular file or cannot be read.

    Args:
      file, offset, number: the file, and the position of the first line to read.
      lines: number of lines to read, blank ones included; None for all.
      longest: number of bytes to keep of a line; memory does not grow with longer ones.
    """
    try:
        with open_regular(file) as stream:
            stream.seek(offset)
            while lines is None or lines > 0:
                data, size = _next(stream, longest)
                if not size:
                    return
                if bare := data.rstrip(b"\r\n"):
                    if offset == 0:
                        bare = bare.removeprefix(b"\xef\xbb\xbf")
                    yield Line(number, offset, bare, size == len(data))
                offset, number = offset + size, number + 1
                lines = None if lines is None else lines - 1
    except OSError as error:
        raise unreadable(file, error) from None


def line_starts(file: Path) -> Iterator[int]:
    """Yields the offset of each line of a regular file, blank ones included, and then the file's size.

    Raises JclipError if the file is not a regular file, or cannot be read.
    """
    offset = 0
    try:
        with open_regular(file) as stream:
            yield offset
            while size := _next(stream, 0)[1]:
                offset += size
                yield offset
    except OSError as error:
        raise unreadable(file, error) from None


def _next(stream: BinaryIO, longest: int) -> tuple[bytes, int]:
    """Returns the next line with its line end, and its full size. A line of more than `longest` bytes is truncated."""
    data = last = stream.readline(max(longest, _CHUNK) + 2)
    size = len(data)
    while last and not last.endswith(b"\n"):
        last = stream.readline(_CHUNK)
        size += len(last)
    fits = size == len(data) and len(data.rstrip(b"\r\n")) <= longest
    return data if fits else data[:longest], size


def text_of(file: Path, line: Line) -> str:
    """Returns a line's text. Raises JclipError if the line is too long, or is not UTF-8."""
    if not line.whole:
        size = format_size(len(line.data))
        raise JclipError(f"{file}, line {line.number}: it has more than {size}, too long for a text: correct it")
    try:
        return line.data.decode("utf-8")
    except UnicodeDecodeError:
        raise JclipError(f"{file}, line {line.number}: it is not UTF-8 text: save the file as UTF-8") from None


def object_of(file: Path, line: Line, fields: Sequence[str] = ()) -> dict[str, Any]:
    """Returns a line's JSON object. Raises JclipError if it is not an object, or lacks one of the `fields`."""
    try:
        value = decode(text_of(file, line))
    except JclipError:
        raise
    except ValueError as error:
        raise JclipError(f"{file}, line {line.number}: it is not JSON ({error}): correct or fetch it again") from None
    if not isinstance(value, dict):
        found = text_of(file, line)[:40]
        raise JclipError(f"{file}, line {line.number}: expected a JSON object, found {found}: correct it")
    for name in fields:
        if name not in value:
            raise JclipError(
                f"{file}, line {line.number}: it has no {name!r}, only {', '.join(map(repr, value))}: correct it, or "
                "name the fields"
            )
    return value


def integer(value: Any, what: str, where: str) -> int:
    """Returns a 64-bit id from a JSON value or a text. Raises JclipError with `what` and `where` for others."""
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError(value)
        number = int(value)
        if not -(2**63) <= number < 2**63:
            raise ValueError(value)
    except ValueError:
        found = f"{what} is {_shown(value)}"
        raise JclipError(f"{where}: {found}, but ids must be 64-bit integers: number them again") from None
    return number


def _shown(value: Any) -> str:
    """Returns a value for a message; only the type of a container, because its text may be endless."""
    if isinstance(value, str):
        return repr(value[:40])
    return str(value)[:40] if isinstance(value, (int, float)) else f"a {type(value).__name__}"
