"""Image files with captions from a list, as in most benchmarks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jclip.data.importing.parts import Found, Lost, Part, Reader, cut
from jclip.data.importing.splits import LeftOut
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError, unreadable
from jclip.io.reading import LARGEST_PICTURE, Refused, read_regular


class Entry(NamedTuple):
    """Image and its captions, with the list's own ids; `place` is its position in the list."""

    place: str
    file: Path
    image_id: int
    captions: tuple[str, ...]
    text_ids: tuple[int, ...]
    languages: tuple[str, ...]


@dataclass(frozen=True)
class ListedReader(Reader):
    """Entries of each split."""

    entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        parts: list[Part] = []
        for split, entries in self.entries.items():
            sizes = np.array([entry.file.stat().st_size for entry in entries], np.int64)
            parts += [_Part(split, entries[start:stop]) for start, stop in cut(sizes, shard_bytes)]
        return parts


def listed(entries: Mapping[str, Sequence[Entry]], left_out: LeftOut = ()) -> ListedReader:
    """Returns a strict reader. Raises JclipError if a split is empty, or an image or its captions are missing."""
    for split, found in entries.items():
        if not found:
            raise JclipError(f"split {split!r} holds no image: fetch its lists again")
        for entry in found:
            if not entry.captions:
                raise JclipError(f"{entry.place}: {entry.file.name} has no caption: fetch the captions again")
            if not entry.file.is_file():
                raise JclipError(f"{entry.place}: its image {entry.file} is missing: fetch the images again")
    held = {split: tuple(found) for split, found in entries.items()}
    return ListedReader(PAIRS, (), True, (), held, left_out=left_out)


@dataclass(frozen=True)
class _Part:
    split: str
    entries: tuple[Entry, ...]

    def records(self) -> Iterator[Found | Lost]:
        for place, file, image_id, captions, text_ids, languages in self.entries:
            try:
                image = read_regular(file, LARGEST_PICTURE)
            except Refused as error:
                yield Lost(place, error.reason, len(captions))
                continue
            except OSError as error:
                raise unreadable(file, error) from None
            yield Found(place, StoredPair(image, captions, languages, image_id, text_ids))
