"""Pictures with captions from simple files, as tasks.

    pairs.tsv                                   PICTURE<tab>CAPTION lines, paths relative to the file
    FOLDER/test_texts.jsonl, test_imgs.tsv      cn_clip's: {"text_id": 3, "text": "…", "image_ids": [7]}, ID<tab>BASE64
    FOLDER/dataset_info.json, …                 what `jclip.data.folders.write_pairs` wrote

Captions in several languages lie in FOLDER/LANGUAGE, or share one gallery as FOLDER/test_texts.LANGUAGE.jsonl.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import overload

from jclip.data.folders import PairFolder, Records
from jclip.data.images import Picture
from jclip.data.records import Pair
from jclip.errors import JclipError, unreadable
from jclip.evaluate.features import json_lines, whole_number, whole_numbers
from jclip.evaluate.positives import Positives
from jclip.evaluate.tasks import RetrievalTask

_STANDARD = bytes.maketrans(b"-_", b"+/")


def read_task(place: Path, split: str = "test", language: str = "") -> RetrievalTask:
    """The task in a file or a folder, whichever of the forms above it has.

    Args:
      place: a file PICTURE<tab>CAPTION, one of cn_clip's _texts.jsonl, or a folder.
      split: of a folder.
      language: whose captions; "" for the only ones there are.

    Raises:
      JclipError: nothing of these forms is there, or it is damaged; file and line are given.
    """
    if place.is_file():
        return read_cn_clip(place, language) if place.suffix == ".jsonl" else read_pairs(place)
    if not place.is_dir():
        raise JclipError(f"{place} is not there: name a file of pairs, or a folder of a data set")
    if language:
        shared = place / f"{split}_texts.{language}.jsonl"
        if shared.is_file():
            return read_cn_clip(shared, language)
        if (place / language).is_dir():
            place = place / language
    if (place / f"{split}_texts.jsonl").is_file():
        return read_cn_clip(place / f"{split}_texts.jsonl", language)
    if (place / "dataset_info.json").is_file():
        return read_folder(place, split, language)
    found = sorted(file.name.removesuffix("_texts.jsonl") for file in place.glob("*_texts.jsonl"))
    if found:
        raise JclipError(f"{place} has no split {split!r}: it has {', '.join(found)}; choose one with --split")
    raise JclipError(f"{place} holds neither {split}_texts.jsonl with {split}_imgs.tsv nor a data set: name another")


def languages_in(place: Path, split: str) -> list[str]:
    """The languages for which a folder has captions of their own, sorted; none where it has one set of captions."""
    if not place.is_dir():
        return []
    shared = [file.name.split(".")[1] for file in place.glob(f"{split}_texts.*.jsonl") if _has_captions(file)]
    apart = [one.name for one in place.iterdir() if (one / f"{split}_texts.jsonl").is_file()]
    apart += [one.name for one in place.iterdir() if one.is_dir() and (one / "dataset_info.json").is_file()]
    return sorted({*shared, *apart})


def _has_captions(file: Path) -> bool:
    """cn_clip's answers seen from the images end in .tr.jsonl too, which here would be captions in Turkish."""
    if file.name.count(".") > 2:
        return False
    return any("text" in found for _, found in islice(json_lines(file), 1))


def read_pairs(file: Path) -> RetrievalTask:
    """A task from PICTURE<tab>CAPTION lines; equal captions and equal paths count once each.

    Raises:
      JclipError: no such file, a line of another form, or no line at all; the line's number is given.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JclipError(f"{file} cannot be read: {error}") from None
    pictures: dict[Path, int] = {}
    captions: dict[str, int] = {}
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or not caption.strip():
            raise JclipError(f"{file}, line {number}: expected PICTURE<tab>CAPTION, found {line[:60]!r}")
        path = file.parent / name
        if not path.is_file():
            raise JclipError(f"{file}, line {number}: there is no picture {path}")
        row = captions.setdefault(caption.strip(), len(captions))
        pairs.append((row, pictures.setdefault(path, len(pictures))))
    if not pairs:
        raise JclipError(f"{file} holds no pair: give it lines PICTURE<tab>CAPTION")
    return RetrievalTask(str(file), list(pictures), list(captions), Positives(pairs, len(captions), len(pictures)))


def read_cn_clip(texts: Path, language: str = "") -> RetrievalTask:
    """A task from SPLIT_texts.jsonl (or SPLIT_texts.LANGUAGE.jsonl) and the SPLIT_imgs.tsv beside it.

    A text whose `image_ids` are empty, as in a test whose answers are secret, is encoded and never scored.

    Raises:
      JclipError: a file is missing or damaged, an id is no whole number or is given twice, or a text names a picture
        that is not there; file and line are given.
    """
    split = texts.name.partition("_texts.")[0]
    gallery = TsvPictures(texts.with_name(f"{split}_imgs.tsv"))
    rows = {number: row for row, number in enumerate(gallery.ids)}
    captions: dict[int, str] = {}
    answers: dict[int, list[int]] = {}
    for place, found in json_lines(texts):
        number, text = whole_number(place, found, "text_id"), found.get("text")
        if not isinstance(text, str) or not text.strip():
            raise JclipError(f"{place}: 'text' is {text!r}, but must be a caption")
        ids = whole_numbers(place, found, "image_ids")
        lost = next((one for one in ids if one not in rows), None)
        if lost is not None:
            raise JclipError(f"{place}: text {number} belongs to picture {lost}, which is not in {gallery.file}")
        if (captions.setdefault(number, text), answers.setdefault(number, ids)) != (text, ids):
            raise JclipError(f"{place}: text_id {number} is another text above: give each its own number")
    if not captions:
        raise JclipError(f"{texts} holds no caption: write one object a line")
    pairs = [(row, rows[one]) for row, ids in enumerate(answers.values()) for one in ids]
    return RetrievalTask(
        name=str(texts),
        pictures=gallery,
        captions=list(captions.values()),
        positives=Positives(pairs, len(captions), len(gallery)),
        image_ids=gallery.ids,
        text_ids=list(captions),
        language=language,
    )


def read_folder(folder: Path, split: str, language: str = "") -> RetrievalTask:
    """A task from array_record files: records with one image_id are one picture, equal captions of one text_id one.

    Raises:
      JclipError: the folder or the split is missing, or holds nothing.
    """
    records = PairFolder(str(folder), split).open()
    pictures: dict[int, int] = {}
    captions: dict[tuple[int, str], int] = {}
    pairs: list[tuple[int, int]] = []
    places: list[int] = []
    for place in range(len(records)):
        record = records[place]
        row = pictures.setdefault(record.image_ids[0], len(pictures))
        if row == len(places):
            places.append(place)
        pairs += [(captions.setdefault((record.text_id, text), len(captions)), row) for text in record.captions]
    if not pairs:
        raise JclipError(f"{folder}, split {split!r}, holds no caption: import it again")
    return RetrievalTask(
        name=str(folder),
        pictures=_FirstPictures(records, places, f"{folder}, split {split!r}"),
        captions=[text for _, text in captions],
        positives=Positives(pairs, len(captions), len(pictures)),
        image_ids=list(pictures),
        language=language,
    )


class TsvPictures(Sequence[Picture]):
    """The pictures of a file of ID<tab>BASE64 lines, read when they are asked for; either base64 alphabet will do.

    An id that is there twice with the same picture counts once.

    Attributes:
      file: which.
      ids: of the pictures, in the file's order.

    Raises:
      JclipError: no such file, a line of another form, an id that is no whole number, or one with two pictures.
    """

    def __init__(self, file: Path):
        self.file, self.ids = file, list[int]()
        self._places: list[tuple[int, int]] = []  # (byte, line)
        known: dict[int, bytes] = {}
        try:
            with file.open("rb") as lines:
                at = 0
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        self._note(line, number, at, known)
                    at += len(line)
        except OSError as error:
            raise unreadable(file, error) from None
        if not self.ids:
            raise JclipError(f"{file} holds no picture, so the gallery is empty: write lines ID<tab>BASE64")

    def _note(self, line: bytes, number: int, at: int, known: dict[int, bytes]) -> None:
        name, tab, data = line.strip().partition(b"\t")
        if not tab or not name.isdigit():
            shown = line[:30].decode("utf-8", "replace")
            raise JclipError(f"{self.file}, line {number}: expected ID<tab>BASE64, the id a number, found {shown!r}")
        digest = hashlib.blake2b(data.translate(_STANDARD), digest_size=16).digest()
        if known.setdefault(int(name), digest) != digest:
            raise JclipError(f"{self.file}, line {number}: picture {int(name)} is another one above: number it anew")
        if len(known) > len(self.ids):
            self.ids.append(int(name))
            self._places.append((at, number))

    def __len__(self) -> int:
        return len(self.ids)

    def name_of(self, index: int) -> str:
        """For messages."""
        return f"picture {self.ids[index]} ({self.file}, line {self._places[index][1]})"

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...

    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at, _ = self._places[index]
        with self.file.open("rb") as lines:
            lines.seek(at)
            data = lines.readline().strip().partition(b"\t")[2].translate(_STANDARD)
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise JclipError(f"{self.name_of(index)} is no base64 ({error}): write it again") from None


class _FirstPictures(Sequence[Picture]):
    """The first picture of some records."""

    def __init__(self, records: Sequence[Pair], places: Sequence[int], name: str):
        self._pictures: Records[Picture] = Records(places, lambda place: records[place].pictures[0])
        self._name = name

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._pictures[index]

    def name_of(self, index: int) -> str:
        """For messages."""
        return f"picture {index} of {self._name}"
