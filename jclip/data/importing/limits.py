"""Limit on how much of a source an import may skip."""

import re
from dataclasses import dataclass

from jclip.data.importing.survey import Skipped
from jclip.errors import JclipError

_ENOUGH = 1000  # minimum number of units read, to estimate their total


@dataclass(frozen=True)
class Limit:
    """Maximum number of skipped units, or their maximum share of the units that are read, from 0 to 1."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def read(cls, text: str) -> "Limit":
        """Parses "500" or "2.5%". Raises JclipError if the text is neither."""
        if re.fullmatch(r"\d+", text):
            return cls(count=int(text))
        if re.fullmatch(r"\d+(\.\d*)?%", text) and float(text[:-1]) <= 100:
            return cls(share=float(text[:-1]) / 100)
        raise JclipError(f"--max-skipped {text} is not possible: give a number, such as 500, or a share, such as 2.5%")

    def check(self, skipped: Skipped, read: int, expected: int | None = None) -> None:
        """Checks what an import skips. Raises JclipError if the limit is passed, or will be at the end.

        Args:
          skipped: units skipped so far.
          read: units read so far, skipped ones included.
          expected: approximate number of all units while reading; None at the end. A share is relative to it, because
            bad units may all be at the beginning.
        """
        over = self.count is not None and skipped.units > self.count
        if self.share is not None and (expected is None or read >= _ENOUGH):
            over = over or skipped.units > self.share * max(read, expected or 0)
        if not over:
            return
        reason, count = max(skipped.counts.items(), key=lambda item: (item[1], item[0]))
        said = f"{self.count}" if self.count is not None else f"{100 * (self.share or 0):g}%"
        whole = "" if expected is None else f" of about {max(read, expected):,} in all"
        raise JclipError(
            f"{skipped.units} of {read} had to be skipped, more than --max-skipped {said}{whole}; {count} because: "
            f"{reason}, first {skipped.places[reason][0]}. Correct the source, or raise --max-skipped"
        )
