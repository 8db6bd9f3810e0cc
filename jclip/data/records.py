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
      text_ids: of each caption, where captions of one picture have meanings of their own (in cn_clip's data a text has
        a number and may belong to several pictures); empty where all have `text_id`.
      languages: of each caption, as "zh"; empty where that is not known.
    """

    pictures: Sequence[Picture]
    captions: Sequence[str]
    image_ids: Sequence[int]
    text_id: int
    text_ids: Sequence[int] = ()
    languages: Sequence[str] = ()


class Labelled(NamedTuple):
    """A picture of one class, or of several.

    Attributes:
      picture: encoded bytes, a path, or a uint8 array.
      labels: numbers of its classes, from 0.
      image_id: number of the picture within the source.
    """

    picture: Picture
    labels: Sequence[int]
    image_id: int


class Translation(NamedTuple):
    """A text in English, which the teacher reads, and the same in another language, which the student reads.

    Attributes:
      english, other: the texts.
      language: of the other, as "zh"; empty where that is not known.
    """

    english: str
    other: str
    language: str = ""
