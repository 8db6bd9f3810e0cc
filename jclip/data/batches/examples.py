"""Examples: what a batch takes from one record of each kind.

Axes: b batch (this process's rows), l tokens of the tower that trains, m tokens of the teacher, d features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from jclip.data.batches.opened import OpenSources
from jclip.data.batches.sampling import Unit
from jclip.images.on_host import Decoder
from jclip.images.preprocess import Picture
from jclip.tokenizers.padding import Texts

Batch = dict[str, np.ndarray]

INT32 = 2**31
"""Number of values of a non-negative int32."""

Where = tuple[int, int, int]
"""Numbers of (source, record, picture); picture is -1 for the record itself."""


class Example(Protocol):
    """Part of a record that goes into a batch. `where` names it if it cannot be read."""

    @property
    def where(self) -> Where: ...  # noqa: D102


E = TypeVar("E", bound=Example)


class Features(Protocol):
    """Features that a frozen tower computed of one source, see `jclip.data.batches.features`."""

    def row(self, record: int, picture: int = 0) -> np.ndarray:
        """Returns the features (d,) of one image of a record, or of its English text.

        Raises JclipError if the tower could not read it.
        """


class Examples(Protocol[E]):
    """Builds examples from records, and batches from examples. An objective chooses one for the records it reads.

    `text_name` is the batch entry with the token ids that the trained text tower reads.
    """

    text_name: str

    def draw(self, unit: Unit, record: Any, random: np.random.Generator) -> E:
        """Returns the example of a unit, such as one image and one caption of the record."""

    def text(self, example: E) -> str:
        """Returns the text that the trained text tower reads. Its length decides the bucket."""

    def load(self, example: E, index: int, features: Sequence[Features] | None) -> Any:
        """Returns the part that is slow to read, such as a decoded image; None without such a part.

        Raises JclipError if it cannot be read; `Batches` then replaces the example.

        Args:
          example: from `draw`.
          index: global example index, for augmentation.
          features: features of each source, to be read instead; None if the tower runs.
        """

    def collate(self, examples: Sequence[E], loaded: Sequence[Any], features: Sequence[Features] | None) -> Batch:
        """Returns the batch entries of this process's rows, without `text_name` and "example"."""


class PairExample(NamedTuple):
    """Image and caption of a `Pair`, with their identities; `where` has the numbers of (source, record, picture)."""

    where: Where
    picture: Picture
    caption: str
    image_id: int
    text_id: int


class PairExamples:
    """Examples for contrastive training.

    Batches hold "image" uint8 (b, h, w, 3), or "image_feature" float32 (b, d) with features; "text" ids (b, l);
    "image_id" and "text_id" int32 (b,).

    `opened` has sources of `Pair`; `decode` reads and augments images.
    """

    text_name = "text"

    def __init__(self, opened: OpenSources, decode: Decoder):
        self._opened, self._decode = opened, decode
        keys = ["shared" if getattr(source, "shared_ids", False) else n for n, source in enumerate(opened.sources)]
        self._id_spaces = [list(dict.fromkeys(keys)).index(key) for key in keys]

    def draw(self, unit: Unit, record: Any, random: np.random.Generator) -> PairExample:
        """Chooses an image and a caption, unless the unit names them."""
        picture = int(random.integers(len(record.pictures))) if unit.picture is None else unit.picture
        if unit.caption is not None:
            caption = unit.caption
        elif unit.language is not None and record.languages:
            ours = [number for number, language in enumerate(record.languages) if language == unit.language]
            # Empty if the record could not be read when languages were counted, and can be read now.
            caption = ours[random.integers(len(ours))] if ours else int(random.integers(len(record.captions)))
        else:
            caption = int(random.integers(len(record.captions)))
        return PairExample(
            (unit.source, unit.record, picture),
            record.pictures[picture],
            record.captions[caption],
            record.image_ids[picture],
            record.text_ids[caption] if record.text_ids else record.text_id,
        )

    def text(self, example: PairExample) -> str:
        """Returns the caption."""
        return example.caption

    def load(self, example: PairExample, index: int, features: Sequence[Features] | None) -> np.ndarray:
        """Returns the decoded image, or its features."""
        source, record, picture = example.where
        if features is not None:
            return features[source].row(record, picture)
        return self._decode(example.picture, index, self._opened.picture_name(source, record, example.picture))

    def collate(
        self, examples: Sequence[PairExample], loaded: Sequence[np.ndarray], features: Sequence[Features] | None
    ) -> Batch:
        """Stacks images and identities."""
        return {
            "image" if features is None else "image_feature": np.stack(loaded),
            "image_id": self._ids([(example.where[0], example.image_id) for example in examples]),
            "text_id": self._ids([(example.where[0], example.text_id) for example in examples]),
        }

    def _ids(self, numbers: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns int32 ids: every id space has its own part of the range, so that sources do not collide."""
        part = INT32 // (max(self._id_spaces) + 1)
        return np.array([self._id_spaces[source] * part + number % part for source, number in numbers], np.int32)


class ParallelExample(NamedTuple):
    """Texts of a `Translation` that the towers read; `where` has the numbers of (source, record, -1)."""

    where: Where
    teacher: str
    student: str


class ParallelExamples:
    """Examples for teacher learning.

    Batches hold "student" ids (b, l), and "teacher" ids (b, m), or "target" float32 (b, d) with features.

    A source's `english_share` is the probability that the student reads the English text itself (Chen et al. 2022,
    section 3.1). `texts` tokenizes for the teacher.
    """

    text_name = "student"

    def __init__(self, opened: OpenSources, texts: Texts):
        self._texts = texts
        self._english_shares = [getattr(source, "english_share", 0.0) for source in opened.sources]

    def draw(self, unit: Unit, record: Any, random: np.random.Generator) -> ParallelExample:
        """Chooses the text that the student reads."""
        english = random.random() < self._english_shares[unit.source]
        where = (unit.source, unit.record, -1)
        return ParallelExample(where, record.english, record.english if english else record.other)

    def text(self, example: ParallelExample) -> str:
        """Returns the student's text."""
        return example.student

    def load(self, example: ParallelExample, index: int, features: Sequence[Features] | None) -> None:
        """Does nothing: a text needs no loading."""
        del example, index, features

    def collate(
        self, examples: Sequence[ParallelExample], loaded: Sequence[Any], features: Sequence[Features] | None
    ) -> Batch:
        """Tokenizes the teacher's texts, or stacks their features."""
        del loaded
        if features is None:
            return {"teacher": self._texts([example.teacher for example in examples])}
        rows = [features[example.where[0]].row(example.where[1]) for example in examples]
        return {"target": np.stack(rows)}
