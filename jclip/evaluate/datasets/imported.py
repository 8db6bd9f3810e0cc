"""Reads data folders with captions, which `jclip data import` writes, as retrieval tasks."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from jclip.data.sources.folders import PairFolder, Records
from jclip.errors import JclipError
from jclip.evaluate.datasets.counting import Counted, Counting, Rows
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.metrics.positives import Positives
from jclip.images.preprocess import Picture

UNDETERMINED = "und"  # ISO 639's code, for captions without a language among others that have one


class _Caption(NamedTuple):
    language: str
    identity: int
    number: Hashable  # in the source, or another unique key
    text: str
    row: int  # row of the image


class ImportedPairs:
    """Split of a data folder. Raises JclipError if the folder or the split is missing or empty.

    If rows are counted as published (see `counting`) and the folder has no ids of its source, each record is an image
    and each of its captions a query.

    Attributes:
      languages: languages of the captions, sorted; empty if unknown.
    """

    def __init__(self, folder: Path, split: str, counting: Counting = "joined"):
        self._folder, self._split, self._counting = folder, split, counting
        records = PairFolder(str(folder), split).open()
        self._rows = Rows[tuple[int, int | None]](counting)  # (record, number in the source)
        self._captions: list[_Caption] = []
        for place in range(len(records)):
            record = records[place]
            number = record.source_image_ids[0] if record.source_image_ids else None
            key = f"record {place}" if number is None else number
            row = self._rows.add(record.image_ids[0], key, (place, number))
            texts, count = record.captions, len(record.captions)
            said: list[Hashable] = [*record.source_text_ids] or [f"caption {n} of record {place}" for n in range(count)]
            languages = record.languages or [""] * count
            self._captions += map(_Caption, languages, record.text_ids, said, texts, [row] * count)
        if not self._captions:
            raise JclipError(f"{folder}, split {split!r}, holds no caption: import it again")
        known = {one.language for one in self._captions}
        self.languages = sorted(one or UNDETERMINED for one in known) if known != {""} else []
        places = [place for place, _ in self._rows.items]
        self._pictures = StoredPictures(places, lambda place: records[place].pictures[0], f"{folder} ({split})")
        self._image_ids = _as_ids([number for _, number in self._rows.items])

    def task(self, language: str = "") -> RetrievalTask:
        """Returns the task of one of `languages`, or of all for "". All tasks share one `pictures` object.

        If no language is known, the task has all captions.
        """
        wanted = "" if language == UNDETERMINED else language
        every = not language or not self.languages
        captions = Rows[_Caption](self._counting)
        asked = [one for one in self._captions if every or one.language == wanted]
        pairs = [(captions.add(one.identity, one.number, one), one.row) for one in asked]
        return RetrievalTask(
            name=f"{self._folder} ({self._split})",
            pictures=self._pictures,
            captions=[one.text for one in captions.items],
            positives=Positives(pairs, len(captions.items), len(self._pictures)),
            image_ids=self._image_ids,
            text_ids=_as_ids([one.number for one in captions.items]),
            language=language,
            counted=Counted(self._counting, self._rows.joined, captions.joined),
        )


def _as_ids(numbers: Sequence[Hashable]) -> list[int] | None:
    """Returns ids for files; None if a row has none, or two rows have the same."""
    ids = [number for number in numbers if isinstance(number, int)]
    return ids if len(set(ids)) == len(numbers) else None


class StoredPictures(Sequence[Picture]):
    """Images of records by number, which `load` reads on access; messages call the data `name`."""

    def __init__(self, places: Sequence[int], load: Callable[[int], Picture], name: str):
        self._pictures: Records[Picture] = Records(places, load)
        self._name = name

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._pictures[index]

    def name_of(self, index: int) -> str:
        """Returns an image's name for messages."""
        return f"image {index} of {self._name}"
