"""What a format gives the engine: parts, each a generator of records that any process can run at any time.

reader = FORMATS["csv"].open(source, reading)      # looks at little more than names
parts = reader.parts(workspace, shard_bytes)       # scans, and finds what is wrong with the whole
for found in parts[3].records(): …                 # in a worker; twice, and the same both times
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jclip.data.sources.kinds import RecordKind
from jclip.errors import JclipError

USUAL_PICTURE = 1 << 17  # bytes of an encoded picture, where only a worker may look for its size

# Reasons for a `Lost` that several formats have.
UNCAPTIONED = "picture without a caption"
UNPICTURED = "text without a picture"
BROKEN_BASE64 = "the picture's base64 is damaged"


class Found(NamedTuple):
    """A record.

    Attributes:
      place: where it is, for a person: "train_imgs.tsv, line 12".
      record: what the kind stores.
      entries: number of the source's entries (files, members, rows, lines) that it is made of; by default, of its
        units.
    """

    place: str
    record: Any
    entries: int | None = None


class Lost(NamedTuple):
    """What cannot become a record.

    Attributes:
      place: as in `Found`.
      reason: why it cannot.
      units: number of units that are lost.
      entries: number of the source's entries; by default, of the units.
    """

    place: str
    reason: str
    units: int = 1
    entries: int | None = None


class Beside(NamedTuple):
    """An entry of the source that nobody takes for data, such as a hidden file: it is counted, and is not a fault.

    Attributes:
      place, reason: as in `Lost`.
    """

    place: str
    reason: str


class Part(Protocol):
    """A stretch of the source that becomes one shard. It is pickled, and holds names and numbers only.

    Attributes:
      split: that it belongs to.
    """

    @property
    def split(self) -> str: ...  # noqa: D102

    def records(self) -> Iterator[Found | Lost | Beside]:
        """Yields all of it, every entry of the source once, in an order that never changes.

        Raises:
          JclipError: it is laid out in another way than its format; the message names file and line.
        """


@dataclass(frozen=True)
class Reader:
    """A source of one format, opened.

    Attributes:
      kind: of its records.
      files: that it reads; an import that was interrupted goes on only while they are the same.
      strict: it is a benchmark: by default nothing is skipped, not even a duplicate.
      classes: names of the classes, for labelled pictures.
    """

    kind: RecordKind
    files: tuple[Path, ...]
    strict: bool = False
    classes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """Names and contents of text files that the folder gets too."""
        return ()

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Splits and files that the source has and that nobody asked for by name, each with why it is left out."""
        return ()

    def unpack(self, workspace: Path) -> "Reader":
        """The reader proper, where archives must be unpacked for it; `workspace` as for `parts`."""
        return self

    def read_as(self, workspace: Path) -> tuple[str, ...]:
        """Returns in words how the source was read: what was found out, and what was taken in another way.

        Args:
          workspace: after `parts` was called with it.
        """
        return ()

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """The parts, in order; those of a split stand together.

        Args:
          workspace: a folder for indices and unpacked archives, which stays for as long as the parts are read, and may
            hold those of an import that was interrupted.
          shard_bytes: about how many bytes of the source a part has.

        Raises:
          JclipError: the source is not whole, or its parts do not fit each other.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Reading:
    """What a person may say about a source; each format knows some of it. None where it is not said.

    Attributes:
      splits: which; one name for formats that have none.
      language: of the captions, of the other text of translations, or of the names of classes.
      picture, caption, english, other, language_column: names of columns or fields; a number counts columns from 1.
      separator: of columns.
      encoding: of a text, as Python calls it.
      root: the folder that the paths of pictures begin in.
      captions_from: "files" beside the pictures, or the pictures' "names".
    """

    splits: tuple[str, ...] | None = None
    language: str | None = None
    picture: str | None = None
    caption: str | None = None
    english: str | None = None
    other: str | None = None
    language_column: str | None = None
    separator: str | None = None
    encoding: str | None = None
    root: str | None = None
    captions_from: str | None = None

    def split(self) -> str:
        """The one name of a source without splits: "train" unless another is said.

        Raises:
          JclipError: several are said.
        """
        if self.splits and len(self.splits) > 1:
            raise JclipError(
                f"--splits {','.join(self.splits)}: the source has no splits, and all of it becomes one: give one name"
            )
        return self.splits[0] if self.splits else "train"


def cut(sizes: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Stretches (start, stop) of consecutive items of about `most` bytes together; never empty.

    >>> cut(np.array([5, 5, 5, 20, 1]), 10)
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    ends = np.cumsum(sizes)
    stretches, start, base = [], 0, 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(ends, base + most, side="right")))
        stretches.append((start, stop))
        start, base = stop, int(ends[stop - 1])
    return stretches
