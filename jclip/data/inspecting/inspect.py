"""What a data folder holds, in figures: counts, languages, lengths of texts, sizes of pictures, duplicates."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.identity import plain_text
from jclip.data.sources.folders import LabelledFolder, open_folder, read_split
from jclip.data.sources.kinds import LABELLED, PAIRS, PARALLEL, RecordKind, kind_by_features
from jclip.data.sources.records import Labelled, Pair, Translation
from jclip.errors import JclipError
from jclip.images.opening import PictureError, open_header, orientation_of
from jclip.tokenizers.text import Tokenizer

_BINS = 12
_TAIL = 0.99  # what lies above it is one bin, or a single long text would put all others into the first
_Text = tuple[str, str]  # its language, and it
_TOGETHER = 256  # texts tokenised at once


class Numbers:
    """Whole numbers that were seen, and how often."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Counts one."""
        self.counts[value] += 1

    def as_json(self) -> dict[str, Any]:
        """Their number, mean, least, median, 95th percentile, greatest, and a histogram of (from, to, count)."""
        if not self.counts:
            return {"count": 0}
        values = np.array(sorted(self.counts))
        counts = np.array([self.counts[value] for value in values.tolist()])
        total, below = int(counts.sum()), np.cumsum(counts)

        def quantile(share: float) -> int:
            return int(values[np.searchsorted(below, share * total)])

        return {
            "count": total,
            "mean": float(values @ counts / total),
            "min": int(values[0]),
            "median": quantile(0.5),
            "p95": quantile(0.95),
            "max": int(values[-1]),
            "histogram": self._histogram(values, counts, quantile(_TAIL)),
        }

    @staticmethod
    def _histogram(values: np.ndarray, counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
        """Bins of one width up to `most`, and one for what is above it."""
        start, width = int(values[0]), max(1, -(-int(most - values[0] + 1) // _BINS))
        last = (most - start) // width
        bins = np.bincount(np.minimum((values - start) // width, last + 1), weights=counts).astype(int)
        ends = [start + (n + 1) * width - 1 for n in range(len(bins))]
        ends[last + 1 :] = [int(values[-1])] * (len(bins) - last - 1)
        starts = [start + n * width for n in range(len(bins))]
        return list(zip(starts, ends, bins.tolist(), strict=True))


@dataclass
class Lengths:
    """Of the texts of a language.

    Attributes:
      characters, tokens: of each text; tokens with the special ones, and cut at nothing.
      over: texts of more tokens than the context length.
    """

    characters: Numbers = field(default_factory=Numbers)
    tokens: Numbers = field(default_factory=Numbers)
    over: int = 0

    @property
    def texts(self) -> int:
        """How many there are."""
        return self.characters.counts.total()

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"characters": self.characters.as_json()}
        if self.tokens.counts:
            found["tokens"] = {**self.tokens.as_json(), "over": self.over}
        return found


@dataclass
class Split:
    """The figures of a split. What its kind does not have stays empty.

    Attributes:
      records: that it has.
      looked_at: of them.
      lengths: of captions, or of both texts of translations, by language; "" where that is not known.
      widths, heights: of the pictures in pixels.
      formats, modes: of the pictures, as Pillow calls them.
      bytes: of the pictures, encoded.
      unreadable: pictures that do not begin as any format does, or are larger than the limit.
      why: the reason for the first of them; empty where there are none.
      turned: pictures that carry a camera's orientation, which `Preprocessing.orientation` ignores or applies.
      classes: pictures of each class, by name.
      labels: what the classes are called, in all languages that the folder has names in; empty without such names.
      same: of "units" (a picture with a caption, a translation, a picture with its classes), "pictures", "texts", and
        the "english" texts of translations: how many equal one before them, see `jclip.data.identity`.
    """

    records: int
    looked_at: int = 0
    lengths: dict[str, Lengths] = field(default_factory=dict)
    widths: Numbers = field(default_factory=Numbers)
    heights: Numbers = field(default_factory=Numbers)
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    bytes: Numbers = field(default_factory=Numbers)
    unreadable: int = 0
    why: str = ""
    turned: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    same: dict[str, int] = field(default_factory=dict)

    @property
    def texts(self) -> int:
        """How many there are, in all languages."""
        return sum(lengths.texts for lengths in self.lengths.values())

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"records": self.records, "looked_at": self.looked_at}
        if self.lengths:
            by_language = sorted(self.lengths.items())
            found |= {"texts": self.texts, "languages": {name: lengths.texts for name, lengths in by_language}}
            found["lengths"] = {name: lengths.as_json() for name, lengths in by_language}
        if self.bytes.counts:
            found["pictures"] = {
                "width": self.widths.as_json(),
                "height": self.heights.as_json(),
                "bytes": self.bytes.as_json(),
                "formats": dict(sorted(self.formats.items())),
                "modes": dict(sorted(self.modes.items())),
                "unreadable": self.unreadable,
                "why": self.why,
                "turned": self.turned,
            }
        if self.classes:
            found["classes"] = self.classes
        if self.labels:
            found["labels"] = self.labels
        found["same"] = self.same
        return found


@dataclass(frozen=True)
class Counting:
    """How token lengths are found.

    Attributes:
      tokenizer: of a model.
      context_length: of that model, special tokens included.
    """

    tokenizer: Tokenizer
    context_length: int


def folder_kind(folder: Path) -> tuple[RecordKind, list[str]]:
    """The kind of a folder's records, and its splits.

    Raises:
      JclipError: it is no data folder.
    """
    builder = open_folder(folder)
    kind = kind_by_features(builder.info.features)
    if kind is None:
        raise JclipError(f"{folder} holds neither pairs nor parallel text nor labelled pictures: name another folder")
    return kind, list(builder.info.splits)


def class_labels(folder: Path, names: Sequence[str]) -> list[str]:
    """What a folder's classes are called, in all languages that it has names in: "飞机, airplane"; else their names.

    Raises:
      JclipError: it has more or fewer names than classes.
    """
    called = LabelledFolder(str(folder)).labels()
    for language, found in called.items():
        if len(found) != len(names):
            raise JclipError(
                f"{folder / 'labels.json'} has {len(found)} names in {language!r} for {len(names)} classes: mend it"
            )
    return [", ".join(dict.fromkeys(each)) for each in zip(*called.values(), strict=True)] or list(names)


def spread(count: int, wanted: int | None) -> Sequence[int]:
    """`wanted` of the first `count` numbers, at equal distances; all when None or when there are no more."""
    if wanted is None or wanted >= count:
        return range(count)
    return [number * count // wanted for number in range(wanted)]


def inspect(
    folder: Path,
    split: str,
    *,
    sample: int | None = None,
    counting: Counting | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Split:
    """The figures of a split.

    Args:
      folder: of any kind.
      split: of the folder.
      sample: look at so many records, evenly spread; all when None.
      counting: of tokens; none when None.
      progress: called with (records looked at, in all) now and then.

    Raises:
      JclipError: it is no such folder, or has no such split.
    """
    kind, _ = folder_kind(folder)
    records = read_split(folder, split, kind)
    found = Split(len(records))
    look = _LOOKS[kind.name]
    names = LabelledFolder(str(folder)).classes() if kind is LABELLED else []
    found.classes = dict.fromkeys(names, 0)
    if (called := class_labels(folder, names)) != names:
        found.labels = dict(zip(names, called, strict=True))
    seen: dict[str, set[bytes]] = {}
    waiting: list[tuple[str, str]] = []
    chosen = spread(len(records), sample)
    for number, index in enumerate(chosen):
        waiting += look(found, records[index], seen, names)
        if counting and (len(waiting) >= _TOGETHER or number == len(chosen) - 1):
            _tokens(found, counting, waiting)
            waiting.clear()
        found.looked_at += 1
        if number % 64 == 0:
            progress(number, len(chosen))
    return found


def _pair(found: Split, pair: Pair, seen: dict[str, set[bytes]], names: Sequence[str]) -> Iterator[_Text]:
    for picture in pair.pictures:
        digest = _picture(found, bytes(picture), seen)  # type: ignore[arg-type] # a folder gives bytes
    for caption, language in zip(pair.captions, pair.languages or ("",) * len(pair.captions), strict=True):
        yield _text(found, caption, language)
        _same(found, seen, "texts", _plain(caption))
        _same(found, seen, "units", digest + _plain(caption))


def _translation(
    found: Split, texts: Translation, seen: dict[str, set[bytes]], names: Sequence[str]
) -> Iterator[_Text]:
    for text, language, name in ((texts.english, "en", "english"), (texts.other, texts.language, "texts")):
        yield _text(found, text, language)
        _same(found, seen, name, _plain(text))
    _same(found, seen, "units", b"\0".join(map(_plain, texts)))


def _labelled(found: Split, item: Labelled, seen: dict[str, set[bytes]], names: Sequence[str]) -> Iterator[_Text]:
    digest = _picture(found, bytes(item.picture), seen)  # type: ignore[arg-type] # a folder gives bytes
    for label in item.labels:
        found.classes[names[label]] += 1
    _same(found, seen, "units", digest + repr(tuple(item.labels)).encode())
    yield from ()


def _picture(found: Split, data: bytes, seen: dict[str, set[bytes]]) -> bytes:
    found.bytes.add(len(data))
    try:
        with warnings.catch_warnings(action="ignore"):
            picture = open_header(data, "")
            found.turned += orientation_of(picture, data) != 1
    except PictureError as error:
        found.unreadable += 1
        found.why = found.why or error.why
    else:
        found.widths.add(picture.width)
        found.heights.add(picture.height)
        found.formats[picture.format or "?"] += 1
        found.modes[picture.mode] += 1
    return _same(found, seen, "pictures", data)


def _text(found: Split, text: str, language: str) -> _Text:
    found.lengths.setdefault(language, Lengths()).characters.add(len(text))
    return language, text


def _plain(text: str) -> bytes:
    return plain_text(text).encode()


def _same(found: Split, seen: dict[str, set[bytes]], what: str, data: bytes) -> bytes:
    digest = hashlib.blake2b(data, digest_size=16).digest()
    before = seen.setdefault(what, set())
    found.same[what] = found.same.get(what, 0) + (digest in before)
    before.add(digest)
    return digest


_LOOKS: dict[str, Callable[..., Iterator[_Text]]] = {
    PAIRS.name: _pair,
    PARALLEL.name: _translation,
    LABELLED.name: _labelled,
}


def _tokens(found: Split, counting: Counting, texts: Sequence[_Text]) -> None:
    encoded = counting.tokenizer.encode([text for _, text in texts], _UNCUT) if texts else ()
    for (language, _), ids in zip(texts, encoded, strict=True):
        lengths = found.lengths[language]
        lengths.tokens.add(len(ids))
        lengths.over += len(ids) > counting.context_length


_UNCUT = 1 << 20
