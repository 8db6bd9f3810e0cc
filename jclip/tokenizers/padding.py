"""Texts as token ids, padded to one of a few lengths.

Axes: n texts, l tokens.
"""

from collections.abc import Sequence

import numpy as np

from jclip.tokenizers.text import Tokenizer, pad

_REMEMBERED = 1 << 17  # tokenised texts that are kept, per tokenizer


class Texts:
    """Callable that tokenizes and pads texts. Caches ids, because captions repeat every epoch.

    Args:
      tokenizer: tokenizer of the text tower.
      context_length: maximum number of tokens, special ones included.
      buckets: shorter lengths. A batch is padded to the shortest length that fits its longest text, so at most
        len(buckets) + 1 shapes are compiled.

    Attributes:
      lengths: all lengths to which a batch may be padded, ascending.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int, buckets: Sequence[int] = ()):
        self._tokenizer, self._context_length = tokenizer, context_length
        self.lengths = sorted({min(bucket, context_length) for bucket in buckets} | {context_length})
        self._ids: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns ids, int32 (n, l)."""
        ids = self._encoded(texts)
        longest = max(map(len, ids))
        return pad(ids, next(each for each in self.lengths if each >= longest), self._tokenizer.pad_id)

    def buckets(self, texts: Sequence[str]) -> np.ndarray:
        """Returns (n,): for each text, the index of the shortest of `lengths` that fits it."""
        return np.searchsorted(self.lengths, [len(ids) for ids in self._encoded(texts)])

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        known = self._ids  # replaced, never cleared: another thread may be reading it
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if len(known) + len(new) > _REMEMBERED:
            known = self._ids = {}
            new = list(dict.fromkeys(texts))
        if new:
            known.update(zip(new, self._tokenizer.encode(new, self._context_length), strict=True))
        return [known[text] for text in texts]
