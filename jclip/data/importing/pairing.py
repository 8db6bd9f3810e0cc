"""Pairs images with caption files, by their names alone.

Names are compared up to a dot, the longest common name first:

    IMG_22.07.jpg  IMG_22.07.txt           a pair: IMG_22.07
    00.jpg  00.txt  00.v2.jpg  00.v2.txt   two pairs: 00 and 00.v2
    000.image.jpg  000.caption.txt         a pair: 000, as webdataset cuts at the first dot
    IMG_22.07.jpg  IMG_22.08.txt           no pair: 07 and 08 are not identifiers
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jclip.data.importing.parts import UNCAPTIONED, UNPICTURED
from jclip.images.preprocess import is_picture_name, picture_endings

TEXTS = ("txt", "text", "caption")
"""Extensions of caption files."""

JSON = ("json",)
"""Extensions of files with a caption in a field."""

SECOND = "second image of a pair"
REPEATED = "repeated name"
UNKNOWN = "neither an image nor a text"
COMPANION = "file of a pair that is not read"

_DEEPEST = 5  # extensions that are removed from a name


class NamePair(NamedTuple):
    """Indices of an image and of its caption in a list of names, and the name that they share."""

    key: str
    picture: int
    caption: int


@dataclass
class Pairing:
    """Result for each name.

    Attributes:
      pairs: images with captions, in the order of the first of the two.
      lost: reason why an image or a caption has no pair, by index.
      beside: reason why another file is ignored, by index.
    """

    pairs: list[NamePair] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    beside: dict[int, str] = field(default_factory=dict)


def pair(names: Sequence[str], captions: Sequence[str] = (*TEXTS, *JSON)) -> Pairing:
    """Pairs the names of files of one folder, without it and none of them hidden.

    `captions` are extensions of captions, in lower case; the first is preferred.

    >>> pair(["a.1.jpg", "a.1.txt", "a.1.json", "b.png"]).pairs
    [NamePair(key='a.1', picture=0, caption=1)]
    >>> pair(["a.1.jpg", "a.1.txt", "a.1.json", "b.png"]).lost
    {3: 'image without a caption'}
    """
    found, taken, first = Pairing(), set[int](), dict[str, int]()
    pictures, texts, keys = dict[str, list[int]](), dict[str, list[int]](), dict[str, None]()
    for number, name in enumerate(names):
        if first.setdefault(name, number) != number:
            found.lost[number] = REPEATED
            continue
        kind = pictures if is_picture_name(name) else texts if _ending(name) in captions else None
        if kind is not None:
            for key in _keys(name):
                kind.setdefault(key, []).append(number)
                keys.setdefault(key)
    inside: set[str] = set()  # keys of pairs, and all their prefixes
    for key in sorted(keys, key=lambda key: -key.count(".")):
        mine = [number for number in pictures.get(key, ()) if number not in taken]
        said = [number for number in texts.get(key, ()) if number not in taken]
        if key in inside or not mine or not said:  # only exact names may be a pair
            mine, said = ([n for n in some if names[n].rpartition(".")[0] == key] for some in (mine, said))
        if mine and said:
            best = NamePair(
                key,
                min(mine, key=lambda n: (names[n].count("."), _rank(names[n], picture_endings()), n)),
                min(said, key=lambda n: (names[n].count("."), _rank(names[n], captions), n)),
            )
            found.pairs.append(best)
            taken |= {best.picture, best.caption}
            inside |= {key, *_keys(f"{key}.")}
    found.pairs.sort(key=lambda one: min(one.picture, one.caption))
    paired = {one.key for one in found.pairs}
    for number, name in enumerate(names):
        if number not in taken and number not in found.lost:
            _leave(found, number, name, captions, belongs=not paired.isdisjoint(_keys(name)), alone=not keys)
    return found


def _leave(found: Pairing, number: int, name: str, captions: Sequence[str], *, belongs: bool, alone: bool) -> None:
    """Notes the result of a name without a pair; `belongs` if a pair has its key, `alone` if no name has a key."""
    if is_picture_name(name):
        found.lost[number] = SECOND if belongs else UNCAPTIONED
    elif belongs:
        found.beside[number] = COMPANION
    elif _ending(name) in captions:
        found.lost[number] = UNPICTURED
    elif alone:
        found.lost[number] = UNKNOWN
    else:
        found.beside[number] = UNKNOWN


def _keys(name: str) -> Iterator[str]:
    """Yields the name without its extension; then shorter ones, while the part that is cut off is an identifier."""
    key = name.rpartition(".")[0]
    for _ in range(_DEEPEST):
        if not key:
            return
        yield key
        key, _, cut = key.rpartition(".")
        if not cut.isidentifier():
            return


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _rank(name: str, endings: Sequence[str]) -> int:
    ending = _ending(name)
    return endings.index(ending) if ending in endings else len(endings)
