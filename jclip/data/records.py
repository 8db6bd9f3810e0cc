"""What an open source holds: a sequence of one of these."""

from collections.abc import Sequence
from typing import NamedTuple

from jclip.data.images import Picture


class Pair(NamedTuple):
    """One thing with its pictures and its captions; a training example draws one of each.

    Attributes:
      pictures: encoded bytes, paths, or uint8 arrays; at least one.
      captions: in one language or several; at least one.
      image_ids: numbers of the pictures within the source; equal pictures are not each other's negatives.
      text_id: number of the meaning within the source, the same for all captions and for every pair of that meaning.
    """

    pictures: Sequence[Picture]
    captions: Sequence[str]
    image_ids: Sequence[int]
    text_id: int


class Translation(NamedTuple):
    """A text in English, which the teacher reads, and the same in another language, which the student reads."""

    english: str
    other: str
