"""What each query of a test gave: two models that were asked the same can be compared query by query.

Axes: q queries, f figures, r resamples.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate.metrics.bootstrap import Interval, interval, intervals, resampled_means

_LARGEST = 1 << 30
"""Bytes of unpacked values: a few packed ones may stand for any number."""


@dataclass(frozen=True)
class Trials:
    """Some queries, and what they contributed to figures, each of which is the mean over its queries.

    Attributes:
      figures: their names.
      asked: a digest of the queries and of what answers them.
      values: float32 (q, f), packed for a JSON file, where most of them are 0 or 1 and take little room.
    """

    figures: tuple[str, ...]
    asked: str
    values: str

    @classmethod
    def pack(cls, figures: Sequence[str], asked: str, values_qf: npt.NDArray[Any]) -> "Trials":
        """Of unpacked values."""
        packed = zlib.compress(np.ascontiguousarray(values_qf, "<f4").tobytes())
        return cls(tuple(figures), asked, base64.b64encode(packed).decode("ascii"))

    def unpack(self) -> npt.NDArray[np.float32]:
        """(q, f): the values.

        Raises:
          JclipError: they are damaged.
        """
        try:
            packed = zlib.decompressobj()
            raw = packed.decompress(base64.b64decode(self.values, validate=True), _LARGEST)
            if not packed.eof:
                raise ValueError("they are cut off, or too many")
            values = np.frombuffer(raw, "<f4")
            return values.reshape(-1, len(self.figures))
        except (ValueError, zlib.error) as error:
            raise JclipError(f"what the queries gave cannot be read ({error}): evaluate again") from None


def digest(*parts: Iterable[str] | npt.NDArray[Any]) -> str:
    """Of texts and arrays."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        for one in [part.tobytes()] if isinstance(part, np.ndarray) else (text.encode() for text in part):
            whole.update(len(one).to_bytes(8, "little") + one)
    return whole.hexdigest()


def changes(before: Sequence[Trials], after: Sequence[Trials], mean: str = "") -> dict[str, Interval]:
    """95 % paired bootstrap intervals of figures less those before, over the queries that both models were asked.

    Args:
      before, after: of one test, of two models.
      mean: the name of the mean of all figures, "" for none.

    Returns:
      By the figures' names; nothing where the queries are not the same or are not known.

    Raises:
      JclipError: as `Trials.unpack`.
    """
    if not after or [(one.figures, one.asked) for one in before] != [(one.figures, one.asked) for one in after]:
        return {}
    found: dict[str, Interval] = {}
    means = []
    for seed, (one, other) in enumerate(zip(before, after, strict=True)):
        values_qf, others_qf = other.unpack(), one.unpack()
        if values_qf.shape != others_qf.shape or not len(values_qf):
            return {}
        means_rf = resampled_means(values_qf - others_qf, seed=seed)
        found |= intervals(other.figures, means_rf)
        means.append(means_rf.mean(axis=1))
    return found | ({mean: interval(np.mean(means, axis=0))} if mean else {})
