"""Deduplication of images and captions of a retrieval task.

"joined": equal images are one row; equal captions are one row, with the positives of all.
"published": one row for each id of the source, as in published tests, even if images or captions are equal.
"""

from collections.abc import Hashable
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Counting = Literal["joined", "published"]


class Counted(NamedTuple):
    """Deduplication of a task.

    Attributes:
      how: "joined" or "published".
      pictures, captions: numbers of duplicates that were removed; 0 for "published".
    """

    how: Counting
    pictures: int
    captions: int


class Rows(Generic[T]):
    """Images or captions without duplicates, in order of first occurrence.

    With "joined", items of equal identity share a row; with "published", items of equal number and identity.

    Attributes:
      items: the first item of each row.
    """

    def __init__(self, counting: Counting):
        self.items: list[T] = []
        self._counting = counting
        self._rows: dict[Hashable, int] = {}
        self._numbers: set[tuple[Hashable, Hashable]] = set()

    def add(self, identity: Hashable, number: Hashable, item: T) -> int:
        """Adds an item if it is new, and returns its row.

        `identity` is equal for equal items. `number` is the id in the source, or another unique key without ids.
        """
        self._numbers.add((number, identity))
        key = identity if self._counting == "joined" else (number, identity)
        row = self._rows.setdefault(key, len(self.items))
        if row == len(self.items):
            self.items.append(item)
        return row

    @property
    def joined(self) -> int:
        """Number of items that share the row of an equal item with another number."""
        return len(self._numbers) - len(self._rows)
