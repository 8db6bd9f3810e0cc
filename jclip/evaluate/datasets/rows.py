"""Rows of a gallery or of queries: what counts as one thing.

"joined": equal pictures are one of the gallery, and equal captions are one query that all their pictures answer.
"published": the source's own numbers count, as published tests do, whatever is equal.
"""

from collections.abc import Hashable
from typing import Literal, NamedTuple

Counting = Literal["joined", "published"]


class Counted(NamedTuple):
    """Counting of a task's pictures and captions.

    Attributes:
      how: "joined" or "published".
      pictures, captions: number of the source's that equal one before them and were joined with it; 0 as published.
    """

    how: Counting
    pictures: int
    captions: int


class Rows:
    """Row numbers of things, from 0 in the order in which they first come.

    Args:
      counting: "joined" makes one row of things of one identity, "published" of those that share their number too.
    """

    def __init__(self, counting: Counting):
        self._counting = counting
        self._rows: dict[Hashable, int] = {}
        self._numbers: set[tuple[Hashable, Hashable]] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, identity: Hashable, number: Hashable) -> tuple[int, bool]:
        """Returns the row of a thing, and whether the thing is its first.

        Args:
          identity: what equal things share.
          number: what the source calls it; where it has no numbers, what tells its things apart.
        """
        self._numbers.add((number, identity))
        key = identity if self._counting == "joined" else (number, identity)
        rows = len(self._rows)
        row = self._rows.setdefault(key, rows)
        return row, row == rows

    @property
    def joined(self) -> int:
        """Number of the source's things that have the row of an equal one with another number."""
        return len(self._numbers) - len(self._rows)
