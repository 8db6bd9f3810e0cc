"""Reads untrusted JSON: limits size and nesting, and gives readable error messages."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from jclip.errors import JclipError, unreadable
from jclip.io.reading import Refused, read_regular
from jclip.plain import shown

LARGEST = 256 << 20
"""Default limit on the bytes of a file. Tokenizers have up to 20 MB, COCO's captions 140."""
DEEPEST = 64
"""Maximum nesting of containers. It is far below Python's recursion limit, so that error messages can use `repr`."""

T = TypeVar("T")

_KINDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number", bool: "a bool"}


def decode(data: bytes | str, *, unique: bool = False) -> Any:
    """Parses JSON: text, or UTF-8 with or without a byte order mark.

    With `unique`, a name that an object repeats is an error; otherwise the last one counts. Raises ValueError, with the
    reason, if it is not JSON, or is nested deeper than DEEPEST.
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
    """Parses JSON that is part of `where`. `what` is the expected content, such as "as a tokenizer.json".

    Raises JclipError, with both in the message, if `decode` refuses it.
    """
    try:
        return decode(data)
    except ValueError as error:
        raise unreadable(where, error, what) from None


def read_json(file: Path, what: str = "", *, largest: int = LARGEST) -> Any:
    """Reads JSON. Raises JclipError if `read_bytes` refuses the file, or `decode` its contents."""
    return parse_json(read_bytes(file, what, largest=largest), file, what)


def read_object(file: Path, what: str = "", *, largest: int = LARGEST) -> dict[str, Any]:
    """Reads a JSON object. Raises JclipError if `read_json` refuses the file, or it holds something else."""
    data = read_json(file, what, largest=largest)
    if not isinstance(data, dict):
        raise unreadable(file, ValueError("it does not hold a JSON object"), what)
    return data


def read_bytes(file: Path, what: str = "", *, largest: int = LARGEST) -> bytes:
    """Reads a regular file of limited size, so that a FIFO cannot block and a device cannot fill the memory.

    Raises JclipError if the file is missing, not regular, or larger than `largest` bytes.
    """
    try:
        return read_regular(file, largest)
    except Refused as error:
        raise unreadable(file, ValueError(f"it is {error.reason}"), what) from None
    except (OSError, ValueError) as error:
        raise unreadable(file, error, what) from None


def entry(record: Mapping[str, Any], name: str, kind: type[T], where: Path | str) -> T:
    """Returns a field of a JSON object. A `kind` of float accepts whole numbers; int does not accept bool.

    Raises JclipError, which names `where`, if the field is missing or has another type.
    """
    if name not in record:
        raise JclipError(f"{where} has no {name}: correct it, or fetch it again")
    value: Any = record[name]
    numeric = kind is float and isinstance(value, int)
    if not (isinstance(value, kind) or numeric) or (kind in (int, float) and isinstance(value, bool)):
        raise JclipError(f"{where}: {name} is {shown(repr(value))}, but must be {_KINDS[kind]}: correct it")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {shown(name)} is repeated")
        found[name] = value
    return found


def _deeper(data: Any) -> bool:
    """Returns True if containers are nested deeper than DEEPEST. Uses no recursion."""
    level = [data]
    for _ in range(DEEPEST):
        containers = [node.values() if isinstance(node, dict) else node for node in level if type(node) in (dict, list)]
        level = [child for children in containers for child in children if type(child) in (dict, list)]
        if not level:
            return False
    return True
