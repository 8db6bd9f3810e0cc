"""Statistics of a data folder: counts, languages, lengths of texts, sizes of images, duplicates."""

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
_TAIL = 0.99  # larger values share one bin; otherwise one long text would put all others into the first bin
_Text = tuple[str, str]  # (language, text)
_TOGETHER = 256  # texts tokenized at once


class Numbers:
    """Counts of integers."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Counts one integer."""
        self.counts[value] += 1

    def as_json(self) -> dict[str, Any]:
        """Returns count, mean, minimum, median, 95th percentile, maximum, and a histogram of (from, to, count)."""
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
        """Returns bins of equal width up to `most`, and one for all above."""
        start, width = int(values[0]), max(1, -(-int(most - values[0] + 1) // _BINS))
        last = (most - start) // width
        bins = np.bincount(np.minimum((values - start) // width, last + 1), weights=counts).astype(int)
        ends = [start + (n + 1) * width - 1 for n in range(len(bins))]
        ends[last + 1 :] = [int(values[-1])] * (len(bins) - last - 1)
        starts = [start + n * width for n in range(len(bins))]
        return list(zip(starts, ends, bins.tolist(), strict=True))


@dataclass
class Lengths:
    """Text lengths of a language.

    Attributes:
      characters, tokens: length of each text; tokens include the special ones, without truncation.
      over: number of texts with more tokens than the context length.
    """

    characters: Numbers = field(default_factory=Numbers)
    tokens: Numbers = field(default_factory=Numbers)
    over: int = 0

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self.characters.counts.total()

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        found: dict[str, Any] = {"characters": self.characters.as_json()}
        if self.tokens.counts:
            found["tokens"] = {**self.tokens.as_json(), "over": self.over}
        return found


@dataclass
class SplitStatistics:
    """Statistics of a split. Those that its record kind lacks stay empty.

    Attributes:
      looked_at: number of records that were read.
      lengths: of captions, or of both texts of translations, by language; "" if unknown.
      widths, heights: of the images in pixels.
      formats, modes: Pillow's names of the images' formats and modes.
      bytes: sizes of the encoded images.
      unreadable: number of images with an unknown header, or larger than the limit.
      why: reason for the first of them; empty if there are none.
      turned: number of images with an EXIF orientation, which `Preprocessing.orientation` ignores or applies.
      classes: number of images of each class, by name.
      labels: class names in all languages of the folder; empty if it has none.
      same: numbers of duplicates (equal to an earlier one, see `jclip.data.identity`): "units" (an image with a
        caption, a translation, an image with its classes), "pictures", "texts", and the "english" texts of
        translations.
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
        """Number of texts, in all languages."""
        return sum(lengths.texts for lengths in self.lengths.values())

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
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
class TokenCounting:
    """Tokenizer for counting tokens, and the context length of its model, special tokens included."""

    tokenizer: Tokenizer
    context_length: int


def folder_kind(folder: Path) -> tuple[RecordKind, list[str]]:
    """Returns the record kind of a folder, and its splits. Raises JclipError if it is not a data folder."""
    builder = open_folder(folder)
    kind = kind_by_features(builder.info.features)
    if kind is None:
        raise JclipError(f"{folder} holds neither pairs nor parallel text nor labelled images: name another folder")
    return kind, list(builder.info.splits)


def class_labels(folder: Path, names: Sequence[str]) -> list[str]:
    """Returns class names in all languages of the folder, such as "飞机, airplane"; `names` if it has no languages.

    Raises JclipError if a language has another number of names.
    """
    called = LabelledFolder(str(folder)).labels()
    for language, found in called.items():
        if len(found) != len(names):
            count = f"{len(found)} names in {language!r} for {len(names)} classes"
            raise JclipError(f"{folder / 'labels.json'} has {count}: correct it")
    return [", ".join(dict.fromkeys(each)) for each in zip(*called.values(), strict=True)] or list(names)


def spread(count: int, wanted: int | None) -> Sequence[int]:
    """Returns `wanted` of the numbers below `count`, evenly spread; all of them if `wanted` is None or larger."""
    if wanted is None or wanted >= count:
        return range(count)
    return [number * count // wanted for number in range(wanted)]


def inspect(
    folder: Path,
    split: str,
    *,
    sample: int | None = None,
    counting: TokenCounting | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> SplitStatistics:
    """Computes the statistics of a split of a data folder. Raises JclipError if the folder or the split does not exist.

    Args:
      folder, split: the split.
      sample: number of records to read, evenly spread; None for all.
      counting: tokenizer for token lengths; None for none.
      progress: called with (records read, records in all) now and then.
    """
    kind, _ = folder_kind(folder)
    records = read_split(folder, split, kind)
    found = SplitStatistics(len(records))
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


def _pair(found: SplitStatistics, pair: Pair, seen: dict[str, set[bytes]], names: Sequence[str]) -> Iterator[_Text]:
    for picture in pair.pictures:
        digest = _picture(found, bytes(picture), seen)  # type: ignore[arg-type] # a folder gives bytes
    for caption, language in zip(pair.captions, pair.languages or ("",) * len(pair.captions), strict=True):
        yield _text(found, caption, language)
        _same(found, seen, "texts", _plain(caption))
        _same(found, seen, "units", digest + _plain(caption))


def _translation(
    found: SplitStatistics, texts: Translation, seen: dict[str, set[bytes]], names: Sequence[str]
) -> Iterator[_Text]:
    for text, language, name in ((texts.english, "en", "english"), (texts.other, texts.language, "texts")):
        yield _text(found, text, language)
        _same(found, seen, name, _plain(text))
    _same(found, seen, "units", b"\0".join(map(_plain, texts)))


def _labelled(
    found: SplitStatistics, item: Labelled, seen: dict[str, set[bytes]], names: Sequence[str]
) -> Iterator[_Text]:
    digest = _picture(found, bytes(item.picture), seen)  # type: ignore[arg-type] # a folder gives bytes
    for label in item.labels:
        found.classes[names[label]] += 1
    _same(found, seen, "units", digest + repr(tuple(item.labels)).encode())
    yield from ()


def _picture(found: SplitStatistics, data: bytes, seen: dict[str, set[bytes]]) -> bytes:
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


def _text(found: SplitStatistics, text: str, language: str) -> _Text:
    found.lengths.setdefault(language, Lengths()).characters.add(len(text))
    return language, text


def _plain(text: str) -> bytes:
    return plain_text(text).encode()


def _same(found: SplitStatistics, seen: dict[str, set[bytes]], what: str, data: bytes) -> bytes:
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


def _tokens(found: SplitStatistics, counting: TokenCounting, texts: Sequence[_Text]) -> None:
    encoded = counting.tokenizer.encode([text for _, text in texts], 1 << 20) if texts else ()  # without truncation
    for (language, _), ids in zip(texts, encoded, strict=True):
        lengths = found.lengths[language]
        lengths.tokens.add(len(ids))
        lengths.over += len(ids) > counting.context_length
