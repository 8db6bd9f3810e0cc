"""Snapshots of a new index while it is made: what is embedded so far can be searched already."""

import time
from collections.abc import Callable
from pathlib import Path

from jclip.io.files import whole_folder
from jclip.search.applying import write_new
from jclip.search.index import IndexFacts
from jclip.search.planning import Plan
from jclip.search.progress import Progress, Watcher
from jclip.search.work import Work
from jclip.search.writing import write_facts

_SECONDS = 5.0
"""Time before the first snapshot, and at least between two."""
_RARELY = 20
"""Time between two snapshots, in times that the last one took."""

Opened = Callable[[Path], None]
"""Function that opens the index in a folder, which the next snapshot replaces."""


class Snapshots:
    """Watcher that writes snapshots, ever more rarely, as they take longer.

    A snapshot has the entries before the first one that is not done. So ids and vectors are those of the index.

    Args:
      work: the work.
      plan: its plan.
      folder: folder of the snapshots.
      facts: facts of the index.
      opened: called with the folder after each.
      watch: called with the progress, too.
    """

    def __init__(self, work: Work, plan: Plan, folder: Path, facts: IndexFacts, opened: Opened, watch: Watcher | None):
        self._work, self._plan, self._folder, self._facts = work, plan, folder, facts
        self._opened, self._watch = opened, watch
        self._next, self._end = time.monotonic() + _SECONDS, 0

    def __call__(self, progress: Progress) -> None:
        """Notes the progress, and writes a snapshot if it is time, and there is something new."""
        if self._watch is not None:
            self._watch(progress)
        began = time.monotonic()
        if began < self._next or progress.done >= progress.total:
            return
        self._next = began + _SECONDS
        end = self._work.first_pending()
        if not self._work.has_outcomes(self._end, end):
            return
        with whole_folder(self._folder) as partial:
            write_facts(partial, self._facts)
            write_new(self._work, self._plan, partial, self._facts.dim, end)
        self._opened(self._folder)
        now = time.monotonic()
        self._end, self._next = end, now + max(_SECONDS, _RARELY * (now - began))
