"""Interface of a format: a reader that divides a source into parts, and parts that any process can read at any time.

reader = FORMATS["csv"].open(source, reading)      # reads little more than names
parts = reader.parts(workspace, shard_bytes)       # scans the source and checks it as a whole
for found in parts[3].records(): …                 # in a worker; twice, with the same result
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jclip.data.sources.kinds import RecordKind
from jclip.errors import JclipError

USUAL_PICTURE = 1 << 17  # assumed bytes of an encoded image, where the sizes are not known in advance

# Reasons of a `Lost` in several formats.
UNCAPTIONED = "image without a caption"
UNPICTURED = "text without an image"
BROKEN_BASE64 = "the image's base64 is damaged"


class Found(NamedTuple):
    """Record of a source.

    Attributes:
      place: position for messages: "train_imgs.tsv, line 12".
      record: record as its kind stores it.
      entries: number of the source's entries (files, members, rows, lines) in it; by default, the number of its units.
    """

    place: str
    record: Any
    entries: int | None = None


class Lost(NamedTuple):
    """Entries that cannot become a record.

    Attributes:
      place, reason: position as in `Found`, and the reason.
      units: number of lost units.
      entries: number of the source's entries; by default, `units`.
    """

    place: str
    reason: str
    units: int = 1
    entries: int | None = None


class Beside(NamedTuple):
    """Entry that is not data, such as a hidden file. It is counted, and is not a fault."""

    place: str
    reason: str


class Part(Protocol):
    """Part of the source that becomes one shard of a split. It is pickled, so it holds only names and numbers."""

    @property
    def split(self) -> str: ...  # noqa: D102

    def records(self) -> Iterator[Found | Lost | Beside]:
        """Yields every entry of the part once, in a fixed order.

        Raises JclipError if the layout does not fit the format; the message names file and line.
        """


@dataclass(frozen=True)
class Reader:
    """Opened source of one format.

    Attributes:
      kind: kind of its records.
      files: files that it reads; an interrupted import resumes only while they are unchanged.
      strict: True for a benchmark: by default nothing is skipped, not even a duplicate.
      classes: names of the classes, for labelled images.
      notes: names and contents of text files to put into the data folder.
      left_out: splits and files that are not imported unless the user asks for them, each with the reason.
    """

    kind: RecordKind
    files: tuple[Path, ...]
    strict: bool = False
    classes: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    left_out: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    def unpack(self, workspace: Path) -> "Reader":
        """Returns the reader of the unpacked source, if it has archives; `workspace` as in `parts`."""
        return self

    def read_as(self, workspace: Path) -> tuple[str, ...]:
        """Describes how the source was read, after `parts`: what was detected, and what was adjusted."""
        return ()

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, in order, by split. Raises JclipError if the source is incomplete or inconsistent.

        `workspace` is for indices and unpacked archives. It is kept while the parts are read, and may hold those of an
        interrupted import. A part has about `shard_bytes` bytes of the source.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Reading:
    """The user's options for reading a source, None if not given. Each format uses some of them.

    Attributes:
      splits: names of the splits; one name for formats without splits.
      language: language of the captions, of the other text of translations, or of the class names.
      picture, caption, english, other, language_column: names of columns or fields; a number counts columns from 1.
      separator: separator of columns.
      encoding: Python's name of the text encoding.
      root: folder to which the paths of images are relative.
      captions_from: "files" beside the images, or the images' "names".
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
        """Returns the split of a source without splits, by default "train". Raises JclipError if several are given."""
        if self.splits and len(self.splits) > 1:
            raise JclipError(
                f"--splits {','.join(self.splits)}: the source has no splits and becomes a single one: give one name"
            )
        return self.splits[0] if self.splits else "train"


def cut(sizes: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Divides consecutive items into ranges (start, stop) of about `most` bytes, each of at least one item.

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
