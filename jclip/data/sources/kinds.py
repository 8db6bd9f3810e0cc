"""Record kinds of data folders: layout, checks and digests of pairs, parallel text and labelled images.

Imports count and skip units: an image with one of its captions, a translation, or a labelled image. A record has one
or several units.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from jclip.data.identity import picture_identity, text_identity
from jclip.data.sources.records import Labelled, Pair, Translation
from jclip.images.checking import PictureRules


class StoredPair(NamedTuple):
    """Encoded image and its captions, to be written to a folder.

    Attributes:
      image, captions: content of the record. Identities are derived from it, see `jclip.data.identity`.
      languages: language of each caption, such as "zh"; empty if unknown.
      source_image_id, source_text_ids: ids of the image and of each caption in the original data set; None and empty
        if it has none. Published tests and cn_clip's files use them.
    """

    image: bytes
    captions: tuple[str, ...]
    languages: tuple[str, ...] = ()
    source_image_id: int | None = None
    source_text_ids: tuple[int, ...] = ()


class StoredLabelled(NamedTuple):
    """Encoded image and its class numbers, to be written to a folder."""

    image: bytes
    labels: tuple[int, ...]
    image_id: int


@dataclass(frozen=True)
class KeepRules:
    """Rules for the units that an import keeps.

    Attributes:
      min_length, max_length: characters of a caption, or of both texts of a translation, without surrounding white
        space; None for no limit. Chinese-CLIP's pre-training kept 5 to 50 (Yang et al. 2022, section 3).
      skip_duplicates: skip the second of two units with equal bytes.
      pictures: rules for images, see `jclip.images.checking`.
    """

    min_length: int = 1
    max_length: int | None = None
    skip_duplicates: bool = True
    pictures: PictureRules = PictureRules()

    def text(self, text: str) -> str:
        """Returns the reason to skip a text; empty to keep it."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return "text with half a character"  # JSON may hold "\\ud83d" without its second half
        length = len(text.strip())
        if not length:
            return "empty text"
        if length < self.min_length:
            return f"text shorter than {self.min_length} characters"
        if self.max_length is not None and length > self.max_length:
            return f"text longer than {self.max_length} characters"
        return ""


class RecordKind(Protocol):
    """Layout and checks of one kind of records: `name` is "pairs", "parallel" or "labelled", `what` in words."""

    name: ClassVar[str]
    what: ClassVar[str]

    def features(self, classes: Sequence[str]) -> dict[str, Any]:
        """Returns the tensorflow-datasets features of a record."""

    def example(self, record: Any) -> dict[str, Any]:
        """Returns the features' values of a record that is to be written."""

    def record(self, example: dict[str, Any]) -> Any:
        """Returns the record of an example that was read. Older folders may lack features."""

    def skip_reasons(self, record: Any, rules: KeepRules) -> list[str]:
        """Returns, for each unit, the reason to skip its texts, or "". Images are checked elsewhere."""

    def digests(self, record: Any) -> list[bytes]:
        """Returns a 16-byte digest of each unit; equal units have equal digests."""

    def languages(self, record: Any) -> Sequence[str]:
        """Returns the language of each unit; "" if unknown."""

    def select(self, record: Any, kept: Sequence[bool]) -> Any:
        """Returns the record with only the kept units, at least one."""


class _Pairs:
    name: ClassVar[str] = "pairs"
    what: ClassVar[str] = Pair.called()

    def features(self, classes: Sequence[str]) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        return {
            "image": tfds.features.Image(),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "languages": tfds.features.Sequence(tfds.features.Text()),
            "image_id": tfds.features.Scalar(np.int64),
            "text_ids": tfds.features.Sequence(tfds.features.Scalar(np.int64)),
            "source_image_id": tfds.features.Sequence(tfds.features.Scalar(np.int64)),  # one, or none
            "source_text_ids": tfds.features.Sequence(tfds.features.Scalar(np.int64)),
        }

    def example(self, record: StoredPair) -> dict[str, Any]:
        return {
            "image": record.image,
            "captions": list(record.captions),
            "languages": list(self.languages(record)),
            "image_id": picture_identity(record.image),
            "text_ids": [text_identity(caption) for caption in record.captions],
            "source_image_id": [] if record.source_image_id is None else [record.source_image_id],
            "source_text_ids": list(record.source_text_ids),
        }

    def record(self, example: dict[str, Any]) -> Pair:
        captions = [_text(caption) for caption in example["captions"]]
        image_id, text_ids = int(example["image_id"]), _numbers(example.get("text_ids", ()))
        if "source_text_ids" in example:
            source_image_ids, source_text_ids = map(_numbers, (example["source_image_id"], example["source_text_ids"]))
        else:
            # Older folders hold only the source's own ids, or ids that the import made up.
            source_image_ids, source_text_ids = (image_id,), text_ids or (int(example["text_id"]),) * len(captions)
            image_id, text_ids = picture_identity(example["image"]), tuple(map(text_identity, captions))
        return Pair(
            (example["image"],),
            captions,
            (image_id,),
            text_ids[0] if text_ids else 0,
            text_ids,
            tuple(_text(language) for language in example.get("languages", ())),
            source_image_ids,
            source_text_ids,
        )

    def skip_reasons(self, record: StoredPair, rules: KeepRules) -> list[str]:
        return [rules.text(caption) for caption in record.captions]

    def digests(self, record: StoredPair) -> list[bytes]:
        picture = hashlib.blake2b(record.image, digest_size=16).digest()
        return [_digest(picture, _bytes(caption)) for caption in record.captions]

    def languages(self, record: StoredPair) -> Sequence[str]:
        return record.languages or ("",) * len(record.captions)

    def select(self, record: StoredPair, kept: Sequence[bool]) -> StoredPair:
        return record._replace(
            captions=_kept(record.captions, kept),
            languages=_kept(record.languages, kept),
            source_text_ids=_kept(record.source_text_ids, kept),
        )


class _Parallel:
    name: ClassVar[str] = "parallel"
    what: ClassVar[str] = Translation.called()

    def features(self, classes: Sequence[str]) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        return {name: tfds.features.Text() for name in Translation._fields}

    def example(self, record: Translation) -> dict[str, Any]:
        return record._asdict()

    def record(self, example: dict[str, Any]) -> Translation:
        return Translation(*(_text(example.get(name, "")) for name in Translation._fields))

    def skip_reasons(self, record: Translation, rules: KeepRules) -> list[str]:
        return [rules.text(record.english) or rules.text(record.other)]

    def digests(self, record: Translation) -> list[bytes]:
        return [_digest(*map(_bytes, record))]

    def languages(self, record: Translation) -> Sequence[str]:
        return (record.language,)

    def select(self, record: Translation, kept: Sequence[bool]) -> Translation:
        return record


class _Labelled:
    name: ClassVar[str] = "labelled"
    what: ClassVar[str] = "images with classes"

    def features(self, classes: Sequence[str]) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        return {
            "image": tfds.features.Image(),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=list(classes))),
            "image_id": tfds.features.Scalar(np.int64),
        }

    def example(self, record: StoredLabelled) -> dict[str, Any]:
        return {**record._asdict(), "labels": list(record.labels)}

    def record(self, example: dict[str, Any]) -> Labelled:
        return Labelled(example["image"], tuple(int(label) for label in example["labels"]), int(example["image_id"]))

    def skip_reasons(self, record: StoredLabelled, rules: KeepRules) -> list[str]:
        return [""]

    def digests(self, record: StoredLabelled) -> list[bytes]:
        return [_digest(record.image, repr(record.labels).encode())]

    def languages(self, record: StoredLabelled) -> Sequence[str]:
        return ("",)

    def select(self, record: StoredLabelled, kept: Sequence[bool]) -> StoredLabelled:
        return record


PAIRS: RecordKind = _Pairs()
PARALLEL: RecordKind = _Parallel()
LABELLED: RecordKind = _Labelled()


def kind_by_features(features: Any) -> RecordKind | None:
    """Returns the kind of a folder with these features; None if it has another."""
    for kind, mark in ((PAIRS, "captions"), (PARALLEL, "english"), (LABELLED, "labels")):
        if mark in features:
            return kind
    return None


def _digest(*parts: bytes) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)  # or "a", "bc" would equal "ab", "c"
    return whole.digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _kept(values: Sequence[Any], kept: Sequence[bool]) -> tuple[Any, ...]:
    """Returns the values of the kept units; () if there are no values."""
    return tuple(value for value, keep in zip(values, kept, strict=True) if keep) if values else ()


def _numbers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
