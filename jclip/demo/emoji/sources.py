"""Sources of emoji: images with names, and parallel names; and the whole data set for evaluation.

The sources never yield a held-out concept or a held-out name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jclip.config import kind_of
from jclip.data.sources.records import Pair, Translation
from jclip.data.sources.source import Source
from jclip.demo.emoji.place import built_at, check_own, is_built
from jclip.demo.emoji.protocol import LANGUAGES, Concept, Role, is_heldout_pair, spelt_similarly
from jclip.errors import JclipError
from jclip.images.preprocess import Picture, Preprocessing, to_array
from jclip.marks import Folder, Mixing
from jclip.ranges import Positive, Share


@kind_of(Source)
@dataclass(frozen=True)
class EmojiPairs(Source):
    """Images by some artists with names in some languages; a record is a known concept.

    Attributes:
      folder: folder of the data set, which is built if missing.
      artists: any of "noto", "twemoji", "openmoji".
      languages: any of `protocol.LANGUAGES`.
      weight: share in a mixture.
    """

    folder: Folder
    artists: tuple[str, ...] = ("twemoji", "openmoji")
    languages: tuple[str, ...] = ("en",)
    weight: Mixing[Positive] = 1.0

    gives: ClassVar[type] = Pair

    def unbuilt(self) -> str:
        """Returns a message about what `open` would do before reading; empty if the data set is built."""
        return _unbuilt(self.folder)

    def open(self, preprocessing: Preprocessing | None = None) -> list[Pair]:
        """Returns the records; with `preprocessing`, their images decoded and resized.

        Raises JclipError for an unknown artist or language, or if the data set cannot be read or built.
        """
        _check(self.languages)
        if not self.artists:
            raise JclipError("emoji pairs need at least one artist")
        emoji = emoji_set(Path(self.folder))
        if preprocessing is None:
            drawn: list[Sequence[Picture]] = [emoji.encoded(artist) for artist in self.artists]
        else:
            drawn = [list(emoji.pictures(artist, preprocessing)) for artist in self.artists]
        records = []
        for row in emoji.rows("known").tolist():
            shown = [each for each in self.languages if not emoji.is_heldout(row, each)]
            if shown:
                ids = [row + artist * len(emoji.concepts) for artist in range(len(drawn))]
                names = [emoji.names[each][row] for each in shown]
                records.append(Pair([pictures[row] for pictures in drawn], names, ids, row, languages=shown))
        return records


@kind_of(Source)
@dataclass(frozen=True)
class EmojiParallel(Source):
    """English names of known concepts beside names in other languages; a record is a translation pair.

    Attributes:
      folder: folder of the data set, which is built if missing.
      languages: any of `protocol.LANGUAGES`; "en" pairs the English names with themselves.
      english_share: probability that the student reads the English name instead of the other.
      weight: share in a mixture.
    """

    folder: Folder
    languages: tuple[str, ...] = LANGUAGES[1:]
    english_share: Mixing[Share] = 0.5
    weight: Mixing[Positive] = 1.0

    gives: ClassVar[type] = Translation

    def unbuilt(self) -> str:
        """Returns a message about what `open` would do before reading; empty if the data set is built."""
        return _unbuilt(self.folder)

    def open(self, preprocessing: Preprocessing | None = None) -> list[Translation]:
        """Returns the records. Raises JclipError for an unknown language or if the data set cannot be read or built."""
        del preprocessing
        _check(self.languages)
        emoji = emoji_set(Path(self.folder))
        return [
            Translation(emoji.names["en"][row], emoji.names[language][row], language)
            for language in self.languages
            for row in emoji.rows("known").tolist()
            if not emoji.is_heldout(row, language)
        ]


class EmojiSet:
    """The whole data set with its held-out parts, for evaluation. Row i of names and images is concept i.

    Attributes:
      concepts: the concepts that all artists have drawn, without copies, in the order of `protocol.concepts`.
      names: language -> a name for each concept.
    """

    def __init__(self, folder: Path):
        """Reads the data set under `folder`; builds it if missing. Raises JclipError if it cannot be read or built."""
        from jclip.demo.emoji.builder import build

        self._builder = build(folder)
        self._examples: dict[str, list[dict[str, Any]]] = {}
        self._pictures: dict[tuple[str, Preprocessing], np.ndarray] = {}
        examples = self._read(self.artists[0])
        text = [{key: example[key].decode() for key in ("codepoints", "group", "subgroup")} for example in examples]
        self.concepts = tuple(Concept(**each) for each in text)
        self.names = {
            language: tuple(example["names"][language].decode() for example in examples) for language in LANGUAGES
        }

    @property
    def artists(self) -> tuple[str, ...]:
        """Names of the artists."""
        return tuple(self._builder.info.splits)

    def rows(self, role: Role | None = None) -> np.ndarray:
        """Returns the rows of the known or the held-out concepts, or of all."""
        chosen = [i for i, concept in enumerate(self.concepts) if role is None or concept.role == role]
        return np.array(chosen, np.int32)

    def is_heldout(self, row: int, language: str) -> bool:
        """Returns True if this name is held out."""
        return is_heldout_pair(self.concepts[row].codepoints, language)

    def heldout_rows(self, language: str, trained: Sequence[str] = LANGUAGES) -> np.ndarray:
        """Returns the rows of known concepts whose held-out name in `language` is also a new word.

        A held-out name is not new if some concept has the same name in one of the languages `trained`, or if the
        concept's trained name in another language is spelt similarly (`protocol.spelt_similarly`).
        """
        known = self.rows("known").tolist()
        trained_names = {i: [self.names[each][i] for each in trained if not self.is_heldout(i, each)] for i in known}
        everywhere = {name.casefold() for names in trained_names.values() for name in names}
        chosen = [
            i
            for i in known
            if self.is_heldout(i, language)
            and (name := self.names[language][i]).casefold() not in everywhere
            and not any(spelt_similarly(name, other) for other in trained_names[i])
        ]
        return np.array(chosen, np.int32)

    def encoded(self, artist: str) -> list[bytes]:
        """Returns an artist's images as PNG, RGBA, one for each concept. Raises JclipError for an unknown artist."""
        return [example["image"] for example in self._read(artist)]

    def pictures(self, artist: str, preprocessing: Preprocessing) -> np.ndarray:
        """Decodes an artist's images, uint8 (concepts, size, size, 3).

        Raises JclipError for an unknown artist, or an unreadable image, named by its code points.
        """
        if (artist, preprocessing) not in self._pictures:
            named = zip(self.concepts, self.encoded(artist), strict=True)
            decoded = np.stack([to_array(preprocessing, png, f"{artist}'s {c.codepoints}") for c, png in named])
            decoded.flags.writeable = False  # shared by all who ask
            self._pictures[artist, preprocessing] = decoded
        return self._pictures[artist, preprocessing]

    def _read(self, artist: str) -> list[dict[str, Any]]:
        import tensorflow_datasets as tfds

        if artist not in self.artists:
            raise JclipError(f"unknown artist {artist!r}: choose from {', '.join(self.artists)}")
        if artist not in self._examples:
            decoders = {"image": tfds.decode.SkipDecoding()}  # resized by our own preprocessing
            try:
                self._examples[artist] = list(self._builder.as_data_source(split=artist, decoders=decoders))
            except (OSError, RuntimeError, ValueError, IndexError) as error:
                folder = self._builder.data_path
                raise JclipError(f"{folder} is damaged ({error}): delete it, and it is built again") from None
        return self._examples[artist]


def emoji_set(folder: Path) -> EmojiSet:
    """Returns the data set under `folder`, built if it is missing, and read once in a process until it is rebuilt.

    Raises JclipError if it cannot be read or built.
    """
    if not is_built(folder):
        return EmojiSet(folder)
    return _opened(folder, built_at(folder))


@lru_cache(maxsize=2)
def _opened(folder: Path, built: int) -> EmojiSet:
    del built  # part of the key
    return EmojiSet(folder)


def _unbuilt(folder: str) -> str:
    if is_built(Path(folder)):
        return ""
    try:
        check_own(Path(folder))
    except JclipError as error:
        return str(error)
    return "not built yet; the run builds it"


def _check(languages: tuple[str, ...]) -> None:
    if not languages:
        raise JclipError(f"emoji need at least one language of {', '.join(LANGUAGES)}")
    for language in languages:
        if language not in LANGUAGES:
            raise JclipError(f"emoji have no names in {language!r}: choose from {', '.join(LANGUAGES)}")
