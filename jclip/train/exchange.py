"""Exchange between two steps: processes act on signals, errors and unreadable data at the same step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jclip.data.batches.loader import Batches
from jclip.errors import JclipError
from jclip.parallel.processes import gather, process_prefix


class Heard(NamedTuple):
    """Reports of all processes; equal on each, except for the type of the error.

    Attributes:
      unreadable: descriptions of newly replaced data, each once per stage.
      error: error that ends the run.
      signal: signal that stops the run.
    """

    unreadable: list[str]
    error: Exception | None
    signal: int | None


class Exchange:
    """Exchanges of one stage.

    `batches` lists the data that it replaced; `signals` are those that this process received. `known` describes data
    that were replaced before the run was resumed; they count towards the limit.
    """

    def __init__(self, batches: Batches, signals: list[int], known: Sequence[str] = ()):
        self._batches, self._signals = batches, signals
        self._reported = 0
        self._unreadable = list(known)

    def __call__(self, failure: Exception | None = None) -> Heard:
        """Exchanges reports of what happened since the last call; `failure` is the error of this process's next batch.

        Raises JclipError if another process left the loop with an error.
        """
        replaced = self._batches.unreadable[self._reported :]
        self._reported += len(replaced)
        own: dict[str, Any] = {}
        if self._signals:
            own["signal"] = self._signals[0]
        if replaced:
            own["unreadable"] = replaced
        if failure is not None:
            own["error"] = f"{process_prefix()}{failure}"
        reports = gather(own or None)
        known = set(self._unreadable)
        found = [words for report in reports for words in report.get("unreadable", ())]
        new = [words for words in dict.fromkeys(found) if words not in known]
        self._unreadable += new
        errors = [JclipError(report["error"]) for report in reports if "error" in report]
        # Each process compares only its own records with the limit; here those of all processes count.
        too_many = self._batches.too_many(self._unreadable)
        error = failure or next(iter(errors), None) or too_many
        return Heard(new, error, next((report["signal"] for report in reports if "signal" in report), None))
