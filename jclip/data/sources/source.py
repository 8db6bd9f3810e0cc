"""Source of records, as a configuration names it."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from jclip.images.preprocess import Preprocessing


class Source(Protocol):
    """Records of one kind. An implementation is a frozen dataclass, decorated with `jclip.config.kind_of(Source)`.

    Optional attributes of an implementation:
      folder, split: names of what it reads, for messages and for caches.
      unbuilt(): returns why the data must be built first, in words; empty if `open` only reads.
      shared_ids: class attribute; True if equal pictures and texts have equal ids in all sources that share theirs.
        Otherwise ids are numbers within the source.

    Attributes:
      gives: class of the records: `Pair`, `Translation`, or one that an objective asks for.
    """

    gives: ClassVar[type]

    @property
    def weight(self) -> float:
        """Share in a mixture, relative to the other sources of the stage."""

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Any]:
        """Returns the records. A source may decode and resize its pictures by `preprocessing`.

        Raises JclipError if the data cannot be read.
        """
