"""Records that an open source holds: one class for each kind of data."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jclip.errors import JclipError
from jclip.images.preprocess import Picture, open_picture


class Record(Protocol):
    """Interface of the records of a stage's sources: what sampling, caching and inspection ask of one.

    Another package's record inherits it, for example as a frozen dataclass, and overrides what differs.
    """

    @classmethod
    def called(cls) -> str:
        """Returns the kind in words, for messages."""
        return cls.__name__

    def pairs(self) -> Sequence[tuple[int, int, str]]:
        """Returns (picture, caption, language) of each unit that an example may take; "" for an unknown language.

        -1 for an image and a caption that `Examples.draw` chooses.
        """
        return [(-1, -1, "")]

    def inputs(self) -> int:
        """Returns the number of images, or other inputs, of which a cache keeps features, see `FrozenTower.read`."""
        return 1

    def identities(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Returns the ids of its images and of its texts, to find records that share one; empty for none."""
        return (), ()

    def shown(self) -> str:
        """Returns a few words about the record, as an example of its source."""
        return f"a {type(self).__name__}"


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

    def inputs(self) -> int:
        """Returns the number of images."""
        return len(self.pictures)

    def identities(self) -> tuple[Sequence[int], Sequence[int]]:
        """Returns the ids of images and captions."""
        return self.image_ids, self.text_ids or (self.text_id,)

    def shown(self) -> str:
        """Returns the first caption, and the size of the first image."""
        return f"{_quoted(self.captions[0])} with {_size(self.pictures[0])}"


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

    def inputs(self) -> int:
        """Returns 1, for the English text."""
        return 1

    def identities(self) -> tuple[Sequence[int], Sequence[str]]:
        """Returns the translation."""
        return (), (self.other,)

    def shown(self) -> str:
        """Returns both texts."""
        return f"{_quoted(self.english)} for {_quoted(self.other)}"


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


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _size(picture: Picture) -> str:
    if isinstance(picture, np.ndarray):
        height, width = picture.shape[:2]
    else:
        try:
            width, height = open_picture(picture, "").size
        except JclipError:
            return "an image that cannot be read"
    return f"an image of {width} x {height}"
