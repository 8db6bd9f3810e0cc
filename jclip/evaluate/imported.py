"""Pictures with captions in folders of array_record files, as `jclip data import` writes them, as tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jclip.data.folders import PairFolder, Records
from jclip.data.images import Picture
from jclip.errors import JclipError
from jclip.evaluate.positives import Positives
from jclip.evaluate.tasks import RetrievalTask

UNDETERMINED = "und"  # ISO 639's code, for captions without a language among others that have one


class _Caption(NamedTuple):
    language: str
    text_id: int
    text: str
    row: int  # of its picture


class ImportedPairs:
    """A split of such a folder. Records with one image_id are one picture, equal captions of one text_id are one.

    Args:
      folder, split: which.

    Attributes:
      languages: of the captions, sorted; none where none is known.

    Raises:
      JclipError: the folder or the split is missing, or holds nothing.
    """

    def __init__(self, folder: Path, split: str):
        self._folder, self._split = folder, split
        records = PairFolder(str(folder), split).open()
        rows: dict[int, int] = {}
        places: list[int] = []
        self._captions: list[_Caption] = []
        for place in range(len(records)):
            record = records[place]
            row = rows.setdefault(record.image_ids[0], len(rows))
            if row == len(places):
                places.append(place)
            texts, count = record.captions, len(record.captions)
            ids, languages = record.text_ids or [record.text_id] * count, record.languages or [""] * count
            self._captions += map(_Caption, languages, ids, texts, [row] * count)
        if not self._captions:
            raise JclipError(f"{folder}, split {split!r}, holds no caption: import it again")
        known = {one.language for one in self._captions}
        self.languages = sorted(one or UNDETERMINED for one in known) if known != {""} else []
        self._pictures = StoredPictures(places, lambda place: records[place].pictures[0], f"{folder} ({split})")
        self._image_ids = list(rows)

    def task(self, language: str = "") -> RetrievalTask:
        """The captions in one of `languages`, all of them for "", with the pictures of all, the same object each time.

        Where no language is known they may be called by any.
        """
        wanted = "" if language == UNDETERMINED else language
        every = not language or not self.languages
        captions: dict[tuple[int, str], int] = {}
        pairs = [
            (captions.setdefault((one.text_id, one.text), len(captions)), one.row)
            for one in self._captions
            if every or one.language == wanted
        ]
        ids = [number for number, _ in captions]
        return RetrievalTask(
            name=f"{self._folder} ({self._split})",
            pictures=self._pictures,
            captions=[text for _, text in captions],
            positives=Positives(pairs, len(captions), len(self._pictures)),
            image_ids=self._image_ids,
            # Captions of one meaning may share a number, which then names none of them.
            text_ids=ids if len(set(ids)) == len(ids) else None,
            language=language,
        )


class StoredPictures(Sequence[Picture]):
    """The pictures of some records, read when they are asked for.

    Args:
      places: which records.
      load: the picture of one.
      name: of the data, for messages.
    """

    def __init__(self, places: Sequence[int], load: Callable[[int], Picture], name: str):
        self._pictures: Records[Picture] = Records(places, load)
        self._name = name

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._pictures[index]

    def name_of(self, index: int) -> str:
        """For messages."""
        return f"picture {index} of {self._name}"
