"""Indexes as containers: their vectors are copied."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.search.entries import FILE
from jclip.search.index import FACTS, Index
from jclip.search.schema import ENTRIES
from jclip.search.sources.items import Container, Item, folder_stamp


class IndexFolder(Container):
    """Index that `jclip embed` wrote. Its entries keep their own containers."""

    kind: ClassVar[str] = "index"
    nested: ClassVar[bool] = False

    @staticmethod
    def recognises(place: Path) -> bool:
        """Returns True for a folder with the files of an index."""
        return (place / FACTS).is_file() and (place / ENTRIES).is_file()

    def check_model(self, identity: str, dim: int, orientation: Orientation) -> None:
        """Raises JclipError if another model made its vectors, or images were rotated differently."""
        facts = self._index.facts
        facts.check_model(identity, self.place, "embed its sources again")
        if facts.orientation != orientation:
            raise JclipError(
                f"{self.place} was made with --orientation {facts.orientation}, not {orientation}: give the same one"
            )

    def stamp(self) -> bytes:
        """Returns a digest of the sizes and times of its files."""
        return folder_stamp(self.place, (self.place / FACTS, self.place / ENTRIES))

    def items(self) -> Iterator[Item]:
        """Yields its entries."""
        stamp = self.stamp()
        for entry in self._index.all_entries():
            container = None if entry.container is None else (entry.origin, os.fsencode(entry.container))
            assert container is not None or entry.origin == FILE, "an entry of another origin has a container"
            yield Item(
                os.fsencode(entry.path), stamp, entry.kind, entry.size, entry.mtime_ns, entry.text, entry.meta,
                entry.position, container, entry.vector, entry.hash, entry.width, entry.height, entry.date,
            )  # fmt: skip

    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """Returns vectors by number, float16 (n, dim)."""
        return self._index.vectors_at(positions)

    @cached_property
    def _index(self) -> Index:
        return Index.open(self.place)
