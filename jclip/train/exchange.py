"""What comes up on one process between two steps, told to all of them, so that all act on it at the same step."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from jclip.data.batches.loader import Batches
from jclip.errors import JclipError
from jclip.parallel.processes import meet, who


class Heard(NamedTuple):
    """What all processes said, the same on each but for the type of an error.

    Attributes:
      unreadable: what is replaced from now on, in words; each once in a stage, whoever met it.
      error: with which all end.
      signal: to stop.
    """

    unreadable: list[str]
    error: Exception | None
    signal: int | None


class Exchange:
    """The meetings of a stage.

    Args:
      batches: of this process, which note what cannot be read.
      signals: that reached it.
      known: what was replaced before the run was resumed, in words; it counts.
    """

    def __init__(self, batches: Batches, signals: list[int], known: Sequence[str] = ()):
        self._batches, self._signals = batches, signals
        self._told = 0
        self._unreadable = list(known)

    def __call__(self, failure: Exception | None = None) -> Heard:
        """Tells the others what came up here, and hears what came up there.

        Args:
          failure: why this process has no batch.

        Raises:
          JclipError: another process left its steps with an error.
        """
        replaced = self._batches.unreadable[self._told :]
        self._told += len(replaced)
        mine: dict[str, Any] = {}
        if self._signals:
            mine["signal"] = self._signals[0]
        if replaced:
            mine["unreadable"] = replaced
        if failure is not None:
            mine["error"] = f"{who()}{failure}"
        told = [json.loads(word) for word in meet(json.dumps(mine) if mine else None)]
        known = set(self._unreadable)
        found = [words for one in told for words in one.get("unreadable", ())]
        new = [words for words in dict.fromkeys(found) if words not in known]
        self._unreadable += new
        errors = [JclipError(one["error"]) for one in told if "error" in one]
        # Each process keeps within the limit by itself; that all do so together shows only here.
        too_many = self._batches.too_many(self._unreadable)
        error = failure or next(iter(errors), None) or too_many
        return Heard(new, error, next((one["signal"] for one in told if "signal" in one), None))
