"""Where examples come from. A source is a small dataclass in a configuration; `open` turns it into records.

Two kinds: pictures with captions, for the contrastive objective, and parallel text, for teacher learning.
"""

from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.data.sources.records import Pair, Translation
from jclip.data.sources.synthetic import SyntheticPairs, SyntheticParallel
from jclip.demo.emoji.sources import EmojiPairs, EmojiParallel

PairSource = PairFolder | EmojiPairs | SyntheticPairs
ParallelSource = ParallelFolder | EmojiParallel | SyntheticParallel
Source = PairFolder | EmojiPairs | SyntheticPairs | ParallelFolder | EmojiParallel | SyntheticParallel

__all__ = [
    "EmojiPairs",
    "EmojiParallel",
    "Pair",
    "PairFolder",
    "PairSource",
    "ParallelFolder",
    "ParallelSource",
    "Source",
    "SyntheticPairs",
    "SyntheticParallel",
    "Translation",
]
