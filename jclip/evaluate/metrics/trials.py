"""Per-query values of a test, with which two models are compared on the same queries.

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
"""Maximum size of unpacked values in bytes; a small file may unpack to any size."""


@dataclass(frozen=True)
class Trials:
    """Contributions of queries to figures; each figure is their mean.

    Attributes:
      figures: names of the figures.
      asked: digest of the queries and their positives; models are compared only if it is equal.
      values: float32 (q, f), compressed for a JSON file.
    """

    figures: tuple[str, ...]
    asked: str
    values: str

    @classmethod
    def pack(cls, figures: Sequence[str], asked: str, values_qf: npt.NDArray[Any]) -> "Trials":
        """Returns the trials with compressed values."""
        packed = zlib.compress(np.ascontiguousarray(values_qf, "<f4").tobytes())
        return cls(tuple(figures), asked, base64.b64encode(packed).decode("ascii"))

    def unpack(self) -> npt.NDArray[np.float32]:
        """Returns the (q, f) values; raises JclipError if they are damaged."""
        try:
            packed = zlib.decompressobj()
            raw = packed.decompress(base64.b64decode(self.values, validate=True), _LARGEST)
            if not packed.eof:
                raise ValueError("they are cut off, or too many")
            values = np.frombuffer(raw, "<f4")
            return values.reshape(-1, len(self.figures))
        except (ValueError, zlib.error) as error:
            raise JclipError(f"per-query values cannot be read ({error}): evaluate again") from None


def digest(*parts: Iterable[str] | npt.NDArray[Any]) -> str:
    """Returns a digest of texts and arrays."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        for one in [part.tobytes()] if isinstance(part, np.ndarray) else (text.encode() for text in part):
            whole.update(len(one).to_bytes(8, "little") + one)
    return whole.hexdigest()


def changes(before: Sequence[Trials], after: Sequence[Trials], mean: str = "") -> dict[str, Interval]:
    """Returns 95 % paired bootstrap intervals of the differences `after` minus `before`, by figure.

    `mean` is the name for the mean of all figures; "" omits it. The result is empty if the queries differ or are
    unknown.
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
