"""Source of records, as a configuration names it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from jclip.data.sources.records import Record
from jclip.images.preprocess import Preprocessing
from jclip.marks import Mixing


class Source(ABC):
    """Records of one kind.

    An implementation is a frozen dataclass that inherits this class and is decorated with `@kind_of(Source)`, see
    `jclip.config`. The command line can then set its fields.

    Fields are marked as in `jclip.marks`. A `Folder` may move, and a cache of features notes its files. `Mixing` is for
    fields that decide how often, or in which role, records are drawn, such as the weight.

    Optional attributes of an implementation:
      folder, split: names of what it reads, for messages.
      unbuilt(): returns why the data must be built first, in words; empty if `open` only reads.
      shared_ids: class attribute; True if ids identify contents, so that equal ids of different sources are duplicates;
        False if ids are numbers within the source.
      english_share: share of the examples of `ParallelExamples` whose text is the English one.

    Attributes:
      gives: class of the records: `Pair`, `Translation`, or another `Record` that an objective reads.
      weight: share in a mixture, relative to the other sources of the stage.
    """

    gives: ClassVar[type[Record]]
    weight: Mixing[float]

    @abstractmethod
    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Any]:
        """Returns the records. A source may decode and resize its images by `preprocessing`.

        Raises JclipError if the data cannot be read.
        """
