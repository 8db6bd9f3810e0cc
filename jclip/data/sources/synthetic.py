"""Synthetic images and captions: for tests, for trying recipes, and for measuring speed without data."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from jclip.config import kind_of
from jclip.data.sources.records import Pair, Translation
from jclip.data.sources.source import Source
from jclip.images.preprocess import Preprocessing
from jclip.marks import Mixing
from jclip.names import TokenizerKind
from jclip.ranges import AtLeastOne, Count, Positive, Share
from jclip.tokenizers.text import Tokenizer, train_clip_bpe, train_unigram, wordpiece

_COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "violet")
_THINGS = ("apple", "bicycle", "castle", "dragon", "elephant", "flower", "guitar", "hammer")
_FOREIGN = {
    "red": "红", "green": "绿", "blue": "蓝", "yellow": "黄", "white": "白", "black": "黑", "orange": "橙",
    "violet": "紫", "apple": "苹果", "bicycle": "自行车", "castle": "城堡", "dragon": "龙", "elephant": "大象",
    "flower": "花", "guitar": "吉他", "hammer": "锤子",
}  # fmt: skip


@kind_of(Source)
@dataclass(frozen=True)
class SyntheticPairs(Source):
    """Random blocks of colour, each with a caption of three words.

    Attributes:
      count: number of records.
      size: height and width of an image in pixels, before preprocessing.
      seed: seed of the images.
      weight: share in a mixture.
    """

    count: AtLeastOne = 256
    size: AtLeastOne = 32
    seed: Count = 0
    weight: Mixing[Positive] = 1.0

    gives: ClassVar[type] = Pair

    def open(self, preprocessing: Preprocessing | None = None) -> list[Pair]:
        """Returns all records, made at once."""
        del preprocessing
        return [Pair((_blocks(self, n),), (caption(n),), (n,), n) for n in range(self.count)]


@kind_of(Source)
@dataclass(frozen=True)
class SyntheticParallel(Source):
    """Captions of `SyntheticPairs`, in English and in something like Chinese."""

    count: AtLeastOne = 256
    english_share: Mixing[Share] = 0.5
    weight: Mixing[Positive] = 1.0

    gives: ClassVar[type] = Translation

    def open(self, preprocessing: Preprocessing | None = None) -> list[Translation]:
        """Returns all records, made at once."""
        del preprocessing
        return [Translation(caption(n), translation(n)) for n in range(self.count)]


def caption(number: int) -> str:
    """Returns the caption of a record: "red apple 0", "green apple 1", …"""
    colour = _COLOURS[number % len(_COLOURS)]
    return f"{colour} {_THINGS[number // len(_COLOURS) % len(_THINGS)]} {number}"


def translation(number: int) -> str:
    """Returns the caption of a record in the other language."""
    colour, thing, ordinal = caption(number).split()
    return f"{_FOREIGN[colour]}{_FOREIGN[thing]} {ordinal}"


def write_tokenizer(kind: TokenizerKind, folder: Path) -> Tokenizer:
    """Trains a small tokenizer on the synthetic captions, and saves it to `folder`."""
    texts = [make(number) for number in range(512) for make in (caption, translation)]
    if kind in ("wordpiece", "bert"):
        words = {word for text in texts for word in text.split()[:-1] if word.isascii()}
        letters = {letter for text in texts for letter in text if not letter.isspace()}
        pieces = sorted(words | letters | {f"##{letter}" for letter in letters})
        tokenizer = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]).as_kind(kind)
    else:
        tokenizer = train_unigram(texts, 200) if kind == "xlmr" else train_clip_bpe(texts, 600)
    tokenizer.save(folder)
    return tokenizer


def _blocks(source: SyntheticPairs, number: int) -> np.ndarray:
    colours = np.random.default_rng([source.seed, number]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    times = -(-source.size // 4)
    return colours.repeat(times, 0).repeat(times, 1)[: source.size, : source.size]
