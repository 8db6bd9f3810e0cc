"""Ranges of numbers, declared at the fields of a configuration and checked when it is created.

@dataclass(frozen=True)
class Tower:
    width: Annotated[int, Range(1, 65536)]

    def __post_init__(self) -> None:
        check_ranges(self)
"""

import dataclasses
import math
import numbers
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from jclip.errors import JclipError
from jclip.plain import shown


class RangeError(JclipError):
    """A field that is outside its range; the message begins with the field's name."""


@dataclass(frozen=True)
class Range:
    """A range of finite numbers for a field, or for each item of a tuple.

    Attributes:
      low, high: the smallest and the largest number.
      above: exclude `low` itself.
    """

    low: float
    high: float
    above: bool = False

    def holds(self, value: Any) -> bool:
        """Returns True if a number is in the range."""
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        """Returns text for messages: "from 1 to 1024"."""
        return f"above {self.low:g}, {self.high:g} at most" if self.above else f"from {self.low:g} to {self.high:.10g}"


Size = Annotated[int, Range(1, 65536)]
"""A width, or a side in pixels or patches: up to ten times the largest published one, without overflow."""
Rows = Annotated[int, Range(1, 2**31 - 1)]
"""Number of rows of an embedding: ids are int32."""
Depth = Annotated[int, Range(1, 1024)]
"""Number of layers of a tower."""


def check_ranges(config: Any) -> None:
    """Checks the fields of a dataclass that declare a `Range`.

    Raises:
      RangeError: a value is outside its range or not a number; the message names the field.
    """
    made: Any = type(config)
    for name, (kind, allowed) in _declared(made).items():
        found = getattr(config, name)
        for value in found if isinstance(found, tuple | list) else (found,):
            if value is not None and not (_is_number(value, kind) and allowed.holds(value)):
                what = "a whole number" if kind is int else "a number"
                raise RangeError(f"{name} is {shown(repr(found))}, but must be {what} {allowed}")


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, numbers.Integral) or (
        kind is float and isinstance(value, numbers.Real) and math.isfinite(value)
    )


@cache
def _declared(config: type) -> dict[str, tuple[type, Range]]:
    """Returns {field: (int or float, range)} for the fields with a range."""
    hints = typing.get_type_hints(config, include_extras=True)
    found: dict[str, tuple[type, Range]] = {}
    for field in dataclasses.fields(config):
        for part in (hints[field.name], *typing.get_args(hints[field.name])):
            for extra in getattr(part, "__metadata__", ()):
                if isinstance(extra, Range):
                    found[field.name] = (float if _holds_float(part.__origin__) else int, extra)
    return found


def _holds_float(kind: Any) -> bool:
    return kind is float or any(map(_holds_float, typing.get_args(kind)))
