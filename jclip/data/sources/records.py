"""Records that an open source holds: one class for each kind of data."""

from collections.abc import Sequence
from typing import NamedTuple

from jclip.images.preprocess import Picture


class Pair(NamedTuple):
    """Images and captions with one meaning. A training example draws one of each.

    Attributes:
      pictures: encoded bytes, paths, or uint8 arrays; at least one.
      captions: in one or several languages; at least one.
      image_ids: identity of each image; equal images are not each other's negatives. In a data folder it is
        `identity.picture_identity`; in other sources, a number within the source.
      text_id: identity of the meaning, shared by all captions and by all pairs with that meaning.
      text_ids: identity of each caption, if captions of an image differ in meaning, as in a data folder; else empty.
      languages: language of each caption, such as "zh"; empty if unknown.
      source_image_ids, source_text_ids: ids in the original data set; empty if it had none.
    """

    pictures: Sequence[Picture]
    captions: Sequence[str]
    image_ids: Sequence[int]
    text_id: int
    text_ids: Sequence[int] = ()
    languages: Sequence[str] = ()
    source_image_ids: Sequence[int] = ()
    source_text_ids: Sequence[int] = ()

    @classmethod
    def called(cls) -> str:
        """Returns the kind in words, for messages."""
        return "images with captions"

    def pairs(self) -> list[tuple[int, int, str]]:
        """Returns (picture, caption, language) for each image with each caption."""
        languages = self.languages or ("",) * len(self.captions)
        return [(n, caption, language) for n in range(len(self.pictures)) for caption, language in enumerate(languages)]


class Translation(NamedTuple):
    """An English text, which the teacher reads, and its translation, which the student reads.

    `language` is that of `other`, such as "zh"; empty if unknown.
    """

    english: str
    other: str
    language: str = ""

    @classmethod
    def called(cls) -> str:
        """Returns the kind in words, for messages."""
        return "parallel text"

    def pairs(self) -> list[tuple[int, int, str]]:
        """Returns one (picture, caption, language); -1 for picture and caption, which a translation lacks."""
        return [(-1, -1, self.language)]


class Labelled(NamedTuple):
    """An image of one or several classes.

    Attributes:
      picture: encoded bytes, a path, or a uint8 array.
      labels: class numbers, from 0.
      image_id: number of the image within the source.
    """

    picture: Picture
    labels: Sequence[int]
    image_id: int

    @classmethod
    def called(cls) -> str:
        """Returns the kind in words, for messages."""
        return "images with classes"


def called(kind: type) -> str:
    """Returns a record class in words, for messages; its name if it has no `called`."""
    return str(kind.called()) if hasattr(kind, "called") else kind.__name__
