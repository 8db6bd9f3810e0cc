"""What an open source holds: a sequence of one of these."""

from collections.abc import Sequence
from typing import NamedTuple

from jclip.images.preprocess import Picture


class Pair(NamedTuple):
    """One thing with its pictures and its captions; a training example draws one of each.

    Attributes:
      pictures: encoded bytes, paths, or uint8 arrays; at least one.
      captions: in one language or several; at least one.
      image_ids: identities of the pictures; equal pictures are not each other's negatives. Those of a data folder are
        `jclip.data.identity`'s, the same in all folders; those of other sources are numbers within the source.
      text_id: identity of the meaning, the same for all captions and for every pair of that meaning.
      text_ids: of each caption, where captions of one picture have meanings of their own, as those of a data folder;
        empty where all have `text_id`.
      languages: of each caption, as "zh"; empty where that is not known.
      source_image_ids, source_text_ids: the numbers that the data had where they came from; empty where they had none.
    """

    pictures: Sequence[Picture]
    captions: Sequence[str]
    image_ids: Sequence[int]
    text_id: int
    text_ids: Sequence[int] = ()
    languages: Sequence[str] = ()
    source_image_ids: Sequence[int] = ()
    source_text_ids: Sequence[int] = ()


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
