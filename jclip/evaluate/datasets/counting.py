"""Deduplication of pictures and captions of a retrieval task.

"joined": equal pictures are one row; equal captions are one row, with the positives of all.
"published": rows are the source's own numbers, as in published tests, equal or not.
"""

from collections.abc import Hashable
from typing import Literal, NamedTuple

Counting = Literal["joined", "published"]


class Counted(NamedTuple):
    """Deduplication of a task.

    Attributes:
      how: "joined" or "published".
      pictures, captions: number of duplicates that were removed; 0 as published.
    """

    how: Counting
    pictures: int
    captions: int


class RowNumbers:
    """Row numbers of pictures or captions, from 0 in order of first occurrence.

    Args:
      counting: "joined" gives one row to items of equal identity, "published" to those of equal number and identity.
    """

    def __init__(self, counting: Counting):
        self._counting = counting
        self._rows: dict[Hashable, int] = {}
        self._numbers: set[tuple[Hashable, Hashable]] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, identity: Hashable, number: Hashable) -> tuple[int, bool]:
        """Returns the row of an item, and whether it is new.

        Args:
          identity: equal for equal items.
          number: id in the source, or another key that is unique in a source without ids.
        """
        self._numbers.add((number, identity))
        key = identity if self._counting == "joined" else (number, identity)
        rows = len(self._rows)
        row = self._rows.setdefault(key, rows)
        return row, row == rows

    @property
    def joined(self) -> int:
        """Number of items that share the row of an equal one with another number."""
        return len(self._numbers) - len(self._rows)
