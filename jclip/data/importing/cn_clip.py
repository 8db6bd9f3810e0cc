"""cn_clip's files: SPLIT_imgs.tsv with `id<tab>base64`, SPLIT_texts.jsonl with {"text_id", "text", "image_ids"}.

An image becomes a record with all its captions; a text of several images becomes a caption of each. Their ids are
stored beside them.
"""

import base64
import binascii
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.importing.index import Index
from jclip.data.importing.lines import LONGEST_PICTURE, Line, integer, object_of, scan
from jclip.data.importing.parts import (
    BROKEN_BASE64,
    UNCAPTIONED,
    UNPICTURED,
    Found,
    Lost,
    Part,
    Reader,
    Reading,
    cut,
)
from jclip.data.importing.splits import choose_labelled
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError
from jclip.io.reading import TOO_LARGE

_LONGEST_ID = 1 << 10  # bytes of a line that are read for the image's number
_REPEATED = "the id is repeated below, and cn_clip uses the last"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decode_base64(data: bytes) -> bytes | None:
    """Decodes base64 in the standard or the URL-safe alphabet; returns None if it is damaged.

    cn_clip's documentation writes the standard one, and its loader (`urlsafe_b64decode`) accepts both.
    """
    data = data.strip().translate(_URL_SAFE)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        return None


@dataclass(frozen=True)
class CnClipReader(Reader):
    """Reader of a folder with cn_clip's files."""

    folder: Path = Path()
    splits: tuple[str, ...] = ()
    language: str = "zh"

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`. A text of a missing image is an error here, before any work is done."""
        parts: list[Part] = []
        for split in self.splits:
            pictures, texts = self.folder / f"{split}_imgs.tsv", self.folder / f"{split}_texts.jsonl"
            lines = Index.made(workspace / f"{split}.pictures", partial(_index_pictures, pictures))
            captions = Index.made(workspace / f"{split}.texts", partial(_index_texts, texts, pictures, lines))
            sizes = np.diff(lines["offset"], append=pictures.stat().st_size)
            parts += [
                _Part(split, pictures, texts, workspace / split, start, stop, self.language)
                for start, stop in cut(sizes, shard_bytes)
            ]
            if len(captions["loose"]):
                parts.append(_Loose(split, texts, workspace / split))
        return parts


def open_cn_clip(source: Path, reading: Reading, strict: bool = False) -> CnClipReader:
    """Opens a folder with cn_clip's files. Raises JclipError if it has none, or one of a split is missing."""
    present = sorted(file.name.removesuffix("_imgs.tsv") for file in source.glob("*_imgs.tsv"))
    if not present:
        raise JclipError(f"{source} has no SPLIT_imgs.tsv: name the folder with files such as train_imgs.tsv")
    splits, files, left_out = choose_labelled(
        source,
        present,
        reading,
        lambda split: [source / f"{split}{end}" for end in ("_imgs.tsv", "_texts.jsonl")],
        lambda split: _is_unlabelled(source / f"{split}_texts.jsonl"),
    )
    return CnClipReader(PAIRS, files, strict, (), source, splits, reading.language or "zh", left_out=left_out)


def _is_unlabelled(texts: Path) -> bool:
    """Returns True if there are texts, but none names an image. Usually the first line decides."""
    line = None
    for line in scan(texts):
        if _text(texts, line)["image_ids"]:
            return False
    return line is not None


def _text(file: Path, line: Line) -> dict[str, Any]:
    """Parses a line of SPLIT_texts.jsonl."""
    where, text = f"{file}, line {line.number}", object_of(file, line, ("text_id", "text", "image_ids"))
    integer(text["text_id"], "text_id", where)
    if not isinstance(text["text"], str) or not isinstance(text["image_ids"], list):
        raise JclipError(f'{where}: "text" must be a string and "image_ids" a list: correct it')
    return text


def _index_pictures(file: Path) -> dict[str, np.ndarray]:
    ids, offsets, numbers = array("q"), array("q"), array("q")
    line = None
    for line in scan(file, longest=_LONGEST_ID):
        name, tab, _ = line.data.partition(b"\t")
        if not tab:
            raise JclipError(
                f"{file}, line {line.number}: expected ID<tab>BASE64, found {line.data[:40]!r}: correct it, or "
                "fetch the file again"
            )
        ids.append(integer(name.decode("utf-8", "replace"), "the image's id", f"{file}, line {line.number}"))
        offsets.append(line.offset)
        numbers.append(line.number)
    if line is None:
        raise JclipError(f"{file} is empty: fetch it again")
    # Of several lines with one id, only the last counts.
    _, from_the_end = np.unique(np.array(ids, np.int64)[::-1], return_index=True)
    last = np.zeros(len(ids), np.int64)
    last[len(ids) - 1 - from_the_end] = 1
    return {"id": np.array(ids), "offset": np.array(offsets), "number": np.array(numbers), "last": last}


def _index_texts(file: Path, pictures: Path, lines: Index) -> dict[str, np.ndarray]:
    ids, offsets, numbers, loose = array("q"), array("q"), array("q"), array("q")
    for line in scan(file):
        where = f"{file}, line {line.number}"
        text = _text(file, line)
        if not text["image_ids"]:
            loose.append(line.number)
        for number in dict.fromkeys(integer(each, "an image id", where) for each in text["image_ids"]):
            ids.append(number)
            offsets.append(line.offset)
            numbers.append(line.number)
    found = np.array(ids, np.int64)
    missing = ~np.isin(found, lines["id"])
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        others = len(np.unique(found[missing])) - 1
        more = f", nor {others} more" if others else ""
        raise JclipError(
            f"{file}, line {numbers[first]}: image {found[first]} is not in {pictures.name}{more}: fetch "
            f"{pictures.name} again, or remove the line"
        )
    order = np.argsort(found, kind="stable")
    columns = {"offset": offsets, "number": numbers}
    sorted_columns = {name: np.array(column, np.int64)[order] for name, column in columns.items()}
    return {"id": found[order], **sorted_columns, "loose": np.array(loose)}


@dataclass(frozen=True)
class _Part:
    split: str
    pictures: Path
    texts: Path
    stem: Path
    start: int
    stop: int
    language: str

    def records(self) -> Iterator[Found | Lost]:
        lines, captions = Index(Path(f"{self.stem}.pictures")), Index(Path(f"{self.stem}.texts"))
        for row in range(self.start, self.stop):
            number, offset = int(lines["number"][row]), int(lines["offset"][row])
            line = next(scan(self.pictures, offset, number, 1, LONGEST_PICTURE))
            place = f"{self.pictures.name}, line {number}"
            rows = captions.rows("id", int(lines["id"][row]))
            if not lines["last"][row]:
                yield Lost(place, _REPEATED, max(1, len(rows)))
                continue
            if not rows:
                yield Lost(place, UNCAPTIONED)
                continue
            image = decode_base64(line.data.partition(b"\t")[2]) if line.whole else None
            if image is None:
                yield Lost(place, BROKEN_BASE64 if line.whole else TOO_LARGE, len(rows))
                continue
            texts = [self._text(int(captions["offset"][each]), int(captions["number"][each])) for each in rows]
            ids, written = tuple(number for number, _ in texts), tuple(text for _, text in texts)
            languages = (self.language,) * len(texts)
            yield Found(place, StoredPair(image, written, languages, int(lines["id"][row]), ids))

    def _text(self, offset: int, number: int) -> tuple[int, str]:
        line: Line = next(scan(self.texts, offset, number, 1))
        text = object_of(self.texts, line)
        return int(text["text_id"]), text["text"]


@dataclass(frozen=True)
class _Loose:
    """Texts of a split that name no image: they give no record, but are counted."""

    split: str
    texts: Path
    stem: Path

    def records(self) -> Iterator[Found | Lost]:
        for number in Index(Path(f"{self.stem}.texts"))["loose"].tolist():
            yield Lost(f"{self.texts.name}, line {number}", UNPICTURED)
