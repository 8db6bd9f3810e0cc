"""Ranges of numbers, declared at the fields of a configuration.

Towers check their ranges when they are created, and a run before anything is built.

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
from typing import Annotated, Any

from jclip.errors import JclipError
from jclip.marks import walk
from jclip.plain import shown


class RangeError(JclipError):
    """Error for a field outside its range; the message begins with the field's name."""


@dataclass(frozen=True)
class Range:
    """Range of finite numbers for a field, or for each item of a tuple.

    Attributes:
      low, high: bounds.
      above, below: exclude `low`, or `high`, itself.
      words: description for messages, instead of the numbers.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    words: str = ""

    def holds(self, value: Any) -> bool:
        """Returns whether a number is in the range."""
        return bool(
            (value > self.low if self.above else value >= self.low)
            and (value < self.high if self.below else value <= self.high)
            and math.isfinite(value)
        )

    def __str__(self) -> str:
        """Returns the bounds in words: "from 1 to 1024"."""
        return f"above {self.low:g}, {self.high:g} at most" if self.above else f"from {self.low:g} to {self.high:.10g}"


Size = Annotated[int, Range(1, 65536)]
"""Width, or side in pixels or patches. The limit is ten times the largest published one, and prevents overflows."""
Rows = Annotated[int, Range(1, 2**31 - 1)]
"""Number of rows of an embedding: ids are int32."""
Depth = Annotated[int, Range(1, 1024)]
"""Number of layers of a tower."""
Count = Annotated[int, Range(0, math.inf, words="0 or more")]
AtLeastOne = Annotated[int, Range(1, math.inf, words="1 or more")]
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""JAX has keys of 32 bits."""
NotNegative = Annotated[float, Range(0, math.inf, words="0 or more")]
Positive = Annotated[float, Range(0, math.inf, above=True, words="a number above 0")]
Share = Annotated[float, Range(0, 1, words="a share, 0 to 1")]
BelowOne = Annotated[float, Range(0, 1, below=True, words="0 or more, and less than 1")]


def check_ranges(config: Any, where: str = "") -> None:
    """Checks the numbers of a dataclass, and of all dataclasses in it, against the declared ranges.

    Raises:
      RangeError: a value is outside its range or not a number; the message begins with the field's dotted path, after
        `where`.
    """
    for path, value, kind, extras in walk(config, where):
        allowed = next((extra for extra in extras if isinstance(extra, Range)), None)
        if allowed is None or value is None or dataclasses.is_dataclass(value) or typing.get_args(kind):
            continue
        number_type = numbers.Integral if kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number_type) or not allowed.holds(value):
            words = allowed.words or f"{'a whole number' if kind is int else 'a number'} {allowed}"
            raise RangeError(f"{path} is {shown(repr(value))}, but must be {words}")
