"""Text files of lines, read from any of them, and what is said of a line that is not as it should be."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jclip.errors import JclipError, unreadable
from jclip.json_files import decode


class Line(NamedTuple):
    """A line of a file.

    Attributes:
      number: from 1, as editors count.
      offset: of its first byte.
      data: its bytes, without the line's end.
    """

    number: int
    offset: int
    data: bytes


def scan(file: Path, offset: int = 0, number: int = 1, lines: int | None = None) -> Iterator[Line]:
    """The lines of a file that are not blank.

    Args:
      file: which.
      offset, number: of the first line that is read.
      lines: how many are read, blank ones among them; all when None.

    Raises:
      JclipError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            while lines is None or lines > 0:
                data = stream.readline()
                if not data:
                    return
                if bare := data.rstrip(b"\r\n"):
                    if offset == 0:
                        bare = bare.removeprefix(b"\xef\xbb\xbf")
                    yield Line(number, offset, bare)
                offset, number = offset + len(data), number + 1
                lines = None if lines is None else lines - 1
    except OSError as error:
        raise unreadable(file, error) from None


def text_of(file: Path, line: Line) -> str:
    """A line's text.

    Raises:
      JclipError: it is not UTF-8.
    """
    try:
        return line.data.decode("utf-8")
    except UnicodeDecodeError:
        raise JclipError(f"{file}, line {line.number}: it is not UTF-8 text: save the file as UTF-8") from None


def object_of(file: Path, line: Line, fields: Sequence[str] = ()) -> dict[str, Any]:
    """A line's JSON object.

    Args:
      file, line: which.
      fields: that it must have.

    Raises:
      JclipError: it is no such object.
    """
    try:
        value = decode(text_of(file, line))
    except JclipError:
        raise
    except ValueError as error:
        raise JclipError(
            f"{file}, line {line.number}: it is no JSON ({error}): mend it, or fetch the file again"
        ) from None
    if not isinstance(value, dict):
        found = text_of(file, line)[:40]
        raise JclipError(f"{file}, line {line.number}: expected a JSON object, found {found}: mend it")
    for name in fields:
        if name not in value:
            raise JclipError(
                f"{file}, line {line.number}: it has no {name!r}, only {', '.join(map(repr, value))}: mend it, or name "
                "the fields"
            )
    return value


def integer(value: Any, what: str, where: str) -> int:
    """A 64-bit integer id.

    Args:
      value: a JSON value, or text.
      what: it is, as "text_id".
      where: it stands, for the message.

    Raises:
      JclipError: it is none.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError(value)
        number = int(value)
        if not -(2**63) <= number < 2**63:
            raise ValueError(value)
    except ValueError:
        raise JclipError(
            f"{where}: {what} is {_shown(value)}, but ids must be integers of 64 bits: number them anew"
        ) from None
    return number


def _shown(value: Any) -> str:
    """A value for a message. Of containers only their type: a pickle may nest them so that their text has no end."""
    if isinstance(value, str):
        return repr(value[:40])
    return str(value)[:40] if isinstance(value, (int, float)) else f"a {type(value).__name__}"
