"""The one reader of JSON that comes from outside: bounded in size and depth, with reasons that a person can use."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from jclip.errors import JclipError, unreadable
from jclip.io.reading import NotTaken, read_regular
from jclip.plain import shown

LARGEST = 256 << 20
"""Bytes of a file, unless its reader says otherwise: a tokenizer has up to 20 MB, COCO's captions 140."""
DEEPEST = 64
"""Containers within each other. Python's own limit is ten times as high, and then a message with `repr` exceeds it."""

T = TypeVar("T")

_KINDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number", bool: "a bool"}


def decode(data: bytes | str, *, unique: bool = False) -> Any:
    """Parses JSON.

    Args:
      data: UTF-8, with or without a byte order mark.
      unique: whether an object may not have one name twice; else the last counts.

    Raises:
      ValueError: it is not JSON, or nested deeper than DEEPEST; the message is the reason.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
        found = json.loads(text, object_pairs_hook=_unique if unique else None)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}: line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        reason = "a number in it has too many digits" if "integer string" in str(error) else str(error)
        raise ValueError(reason) from None
    if _deeper(found):
        raise ValueError("it is nested too deep")
    return found


def parse_json(data: bytes | str, where: Path | str, what: str = "") -> Any:
    """Parses JSON that is part of something.

    Args:
      data: the text.
      where: its file, or its place in one, for messages.
      what: it should have been, as "as a tokenizer.json".

    Raises:
      JclipError: as of `decode`.
    """
    try:
        return decode(data)
    except ValueError as error:
        raise unreadable(where, error, what) from None


def read_json(file: Path, what: str = "", *, largest: int = LARGEST) -> Any:
    """Reads a JSON file.

    Raises:
      JclipError: it is missing, a device, or larger than `largest` bytes, or as of `decode`; the file is named.
    """
    return parse_json(read_bytes(file, what, largest=largest), file, what)


def read_object(file: Path, what: str = "", *, largest: int = LARGEST) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
      JclipError: as of `read_json`, or it holds something else.
    """
    data = read_json(file, what, largest=largest)
    if not isinstance(data, dict):
        raise unreadable(file, ValueError("it holds no JSON object"), what)
    return data


def read_bytes(file: Path, what: str = "", *, largest: int = LARGEST) -> bytes:
    """Reads a file that may be a trap: a FIFO, which blocks, or a device without an end.

    Raises:
      JclipError: it is missing, no regular file, or larger than `largest` bytes.
    """
    try:
        return read_regular(file, largest)
    except NotTaken as error:
        raise unreadable(file, ValueError(f"it is {error.reason}"), what) from None
    except (OSError, ValueError) as error:
        raise unreadable(file, error, what) from None


def entry(record: Mapping[str, Any], name: str, kind: type[T], where: Path | str) -> T:
    """Returns a field of a JSON object.

    Args:
      record: the object.
      name: of the field.
      kind: its type; float takes whole numbers too, and int takes no bool.
      where: the object's file, for messages.

    Raises:
      JclipError: it is missing, or of another type.
    """
    if name not in record:
        raise JclipError(f"{where} has no {name}: mend it, or fetch it again")
    value: Any = record[name]
    numeric = kind is float and isinstance(value, int)
    if not (isinstance(value, kind) or numeric) or (kind in (int, float) and isinstance(value, bool)):
        raise JclipError(f"{where}: {name} is {shown(repr(value))}, but must be {_KINDS[kind]}: mend it")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} stands there twice")
        found[name] = value
    return found


def _deeper(data: Any) -> bool:
    """Whether containers are nested more than DEEPEST deep; level by level, without recursion."""
    level = [data]
    for _ in range(DEEPEST):
        containers = [node.values() if isinstance(node, dict) else node for node in level if type(node) in (dict, list)]
        level = [child for children in containers for child in children if type(child) in (dict, list)]
        if not level:
            return False
    return True
