"""What a data folder holds, in figures: counts, languages, lengths of texts, sizes of pictures, duplicates."""

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jclip.data.folders import open_folder, read_split
from jclip.data.kinds import LABELLED, PAIRS, PARALLEL, Kind, kind_of
from jclip.data.records import Labelled, Pair, Translation
from jclip.data.text import Tokenizer
from jclip.errors import JclipError

_BINS = 12
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
            "histogram": self._histogram(values, counts),
        }

    @staticmethod
    def _histogram(values: np.ndarray, counts: np.ndarray) -> list[tuple[int, int, int]]:
        width = max(1, -(-int(values[-1] - values[0] + 1) // _BINS))
        bins = np.bincount((values - values[0]) // width, weights=counts).astype(int)
        start = int(values[0])
        return [(start + n * width, start + (n + 1) * width - 1, count) for n, count in enumerate(bins.tolist())]


@dataclass
class Split:
    """The figures of a split. What its kind does not have stays empty.

    Attributes:
      records: that it has.
      looked_at: of them.
      texts: captions, or translations.
      languages: of the texts; "" where that is not known.
      characters, tokens: lengths of the texts; tokens with the special ones, and cut at nothing.
      over: texts of more tokens than the context length.
      widths, heights: of the pictures in pixels.
      formats, modes: of the pictures, as Pillow calls them.
      bytes: of the pictures, encoded.
      unreadable: pictures that do not begin as any format does.
      classes: pictures of each class, by name.
      same: of "units" (a picture with a caption, a translation, a picture with its classes), "pictures" and "texts":
        how many equal one before them.
    """

    records: int
    looked_at: int = 0
    texts: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    characters: Numbers = field(default_factory=Numbers)
    tokens: Numbers = field(default_factory=Numbers)
    over: int = 0
    widths: Numbers = field(default_factory=Numbers)
    heights: Numbers = field(default_factory=Numbers)
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    bytes: Numbers = field(default_factory=Numbers)
    unreadable: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    same: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"records": self.records, "looked_at": self.looked_at}
        if self.texts:
            found |= {"texts": self.texts, "languages": dict(sorted(self.languages.items()))}
            found["characters"] = self.characters.as_json()
        if self.tokens.counts:
            found["tokens"] = {**self.tokens.as_json(), "over": self.over}
        if self.bytes.counts:
            found["pictures"] = {
                "width": self.widths.as_json(),
                "height": self.heights.as_json(),
                "bytes": self.bytes.as_json(),
                "formats": dict(sorted(self.formats.items())),
                "modes": dict(sorted(self.modes.items())),
                "unreadable": self.unreadable,
            }
        if self.classes:
            found["classes"] = self.classes
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


def folder_kind(folder: Path) -> tuple[Kind, list[str]]:
    """The kind of a folder's records, and its splits.

    Raises:
      JclipError: it is no data folder.
    """
    builder = open_folder(folder)
    kind = kind_of(builder.info.features)
    if kind is None:
        raise JclipError(f"{folder} holds neither pairs nor parallel text nor labelled pictures: name another folder")
    return kind, list(builder.info.splits)


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
    names = list(open_folder(folder).info.features["labels"].feature.names) if kind is LABELLED else []
    found.classes = dict.fromkeys(names, 0)
    seen: dict[str, set[bytes]] = {}
    waiting: list[str] = []
    chosen = spread(len(records), sample)
    for number, index in enumerate(chosen):
        for text in look(found, records[index], seen, names):
            waiting.append(text)
        if counting and (len(waiting) >= _TOGETHER or number == len(chosen) - 1):
            _tokens(found, counting, waiting)
            waiting.clear()
        found.looked_at += 1
        if number % 64 == 0:
            progress(number, len(chosen))
    return found


def _pair(found: Split, pair: Pair, seen: dict[str, set[bytes]], names: Sequence[str]) -> Iterator[str]:
    for picture in pair.pictures:
        digest = _picture(found, bytes(picture), seen)  # type: ignore[arg-type] # a folder gives bytes
    for caption, language in zip(pair.captions, pair.languages or ("",) * len(pair.captions), strict=True):
        yield _text(found, caption, language, seen)
        _same(found, seen, "units", digest + caption.encode())


def _translation(found: Split, texts: Translation, seen: dict[str, set[bytes]], names: Sequence[str]) -> Iterator[str]:
    yield _text(found, texts.other, texts.language, seen)
    _same(found, seen, "units", f"{texts.english}\0{texts.other}\0{texts.language}".encode())


def _labelled(found: Split, item: Labelled, seen: dict[str, set[bytes]], names: Sequence[str]) -> Iterator[str]:
    digest = _picture(found, bytes(item.picture), seen)  # type: ignore[arg-type] # a folder gives bytes
    for label in item.labels:
        found.classes[names[label]] += 1
    _same(found, seen, "units", digest + repr(tuple(item.labels)).encode())
    yield from ()


def _picture(found: Split, data: bytes, seen: dict[str, set[bytes]]) -> bytes:
    found.bytes.add(len(data))
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as picture:  # its header only
            found.widths.add(picture.width)
            found.heights.add(picture.height)
            found.formats[picture.format or "?"] += 1
            found.modes[picture.mode] += 1
    except Exception:  # Pillow's decoders raise whatever they stumble over
        found.unreadable += 1
    return _same(found, seen, "pictures", data)


def _text(found: Split, text: str, language: str, seen: dict[str, set[bytes]]) -> str:
    found.texts += 1
    found.languages[language] += 1
    found.characters.add(len(text))
    _same(found, seen, "texts", text.encode())
    return text


def _same(found: Split, seen: dict[str, set[bytes]], what: str, data: bytes) -> bytes:
    digest = hashlib.blake2b(data, digest_size=16).digest()
    before = seen.setdefault(what, set())
    found.same[what] = found.same.get(what, 0) + (digest in before)
    before.add(digest)
    return digest


_LOOKS: dict[str, Callable[..., Iterator[str]]] = {
    PAIRS.name: _pair,
    PARALLEL.name: _translation,
    LABELLED.name: _labelled,
}


def _tokens(found: Split, counting: Counting, texts: Sequence[str]) -> None:
    for ids in counting.tokenizer.encode(texts, _UNCUT) if texts else ():
        found.tokens.add(len(ids))
        found.over += len(ids) > counting.context_length


_UNCUT = 1 << 20
