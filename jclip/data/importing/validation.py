"""Validation splits by image: some images, with all their captions, are kept for validation.

The image's bytes decide. With a share, an image is on the same side whatever else the source holds. Equal images are
always on the same side.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.identity import picture_identity
from jclip.data.sources.kinds import RecordKind
from jclip.data.sources.raw_examples import list_features, parse_example
from jclip.data.sources.writing import language_of, read_raw_shard, write_raw_shard
from jclip.errors import JclipError

TRAIN, VALID = "train", "valid"
_ALL = 1 << 63  # identities are below it


@dataclass(frozen=True)
class HeldOut:
    """Number or share, between 0 and 1, of the images to keep for validation; the other field is None."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def read(cls, text: str) -> "HeldOut":
        """Parses a number of images or a percentage. Raises JclipError if it is neither, or leaves one side empty.

        >>> HeldOut.read("30"), HeldOut.read("2.5%")
        (HeldOut(count=30, share=None), HeldOut(count=None, share=0.025))
        """
        if re.fullmatch(r"[1-9]\d{0,17}", text, re.ASCII):
            return cls(count=int(text))
        if re.fullmatch(r"\d{1,2}(\.\d*)?%", text, re.ASCII) and float(text[:-1]) > 0:
            return cls(share=float(text[:-1]) / 100)
        raise JclipError(f"--validation {text!r} is not possible: give a number of images (30) or a share (10%)")

    def __str__(self) -> str:
        return f"{self.count}" if self.count is not None else f"{100 * (self.share or 0):g}%"

    def bound(self, numbers: np.ndarray) -> int:
        """Returns the identity below which images are kept for validation. Raises JclipError if a side would be empty.

        `numbers` are int64 identities from `picture_identity`; equal ones are one image.
        """
        distinct = np.unique(numbers)
        if len(distinct) < 2:
            raise JclipError(
                f"--validation {self} needs two different images or more, but there is {len(distinct)}: add images, or "
                "omit it"
            )
        if self.count is not None:
            if self.count >= len(distinct):
                raise JclipError(
                    f"--validation {self} leaves nothing to train on, because there are {len(distinct)} different "
                    "images: give fewer"
                )
            return int(distinct[self.count])
        bound = int((self.share or 0) * _ALL)
        if bound <= distinct[0]:
            return int(distinct[1])
        return min(bound, int(distinct[-1]))


def picture_numbers(shard: Path, kind: RecordKind) -> np.ndarray:
    """Returns the identity of the image of each record of a shard, int64 (records,)."""
    several = list_features(kind.features(("",)))
    return np.array([picture_identity(parse_example(raw, several)["image"]) for raw in read_raw_shard(shard)], np.int64)


@dataclass
class Side:
    """Side of a divided shard.

    Attributes:
      split: "train" or "valid".
      file: its shard, which may have no records.
      records, units: their numbers.
      languages: number of units of each language.
      record_languages: language of each record.
    """

    split: str
    file: Path
    records: int = 0
    units: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    record_languages: list[str] = field(default_factory=list)

    def count(self, example: dict[str, Any]) -> None:
        """Counts a record."""
        captions = len(example["captions"])
        languages = [bytes(code).decode() for code in example.get("languages", ())] or [""] * captions
        self.records += 1
        self.units += captions
        self.languages.update(languages)
        self.record_languages.append(language_of(languages))


def divide(shard: Path, kind: RecordKind, bound: int, files: dict[str, Path]) -> list[Side]:
    """Divides the records of a shard into two shards, unchanged and in order, and returns both sides, train first.

    Args:
      shard, kind: the shard, and the kind of its records.
      bound: see `HeldOut.bound`.
      files: new shard of each side.
    """
    several = list_features(kind.features(("",)))
    sides = []
    for name in (TRAIN, VALID):
        side = Side(name, files[name])
        write_raw_shard(side.file, _kept(shard, several, bound, side))
        sides.append(side)
    return sides


def _kept(shard: Path, several: set[str], bound: int, side: Side) -> Iterator[bytes]:
    for raw in read_raw_shard(shard):
        example = parse_example(raw, several)
        if (picture_identity(example["image"]) < bound) == (side.split == VALID):
            side.count(example)
            yield raw
