"""Index as the service uses it: searches in one thread, and is replaced while requests run."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from jclip.errors import JclipError
from jclip.search.index import Index
from jclip.search.searching import Searcher
from jclip.serve.refusals import Refusal

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Gallery:
    """Opened index and its searcher.

    Two threads work on it: one for searches, each of which uses all cores, and one for slow work.

    Args:
      folder: the index. It may not exist yet if a job writes it.
      model: the model; the index must be its own.
    """

    def __init__(self, folder: Path, model: Any):
        self.folder, self._model = folder, model
        self._threads = {slow: ThreadPoolExecutor(1, "jclip-search") for slow in (False, True)}
        self._searcher: Searcher | None = None
        self._closing = threading.Event()

    def open(self, snapshot: Path | None = None) -> None:
        """Opens the index, its present state, or a snapshot of an index that is being made.

        Raises JclipError if it is damaged, or another model's.
        """
        index = Index.open(snapshot or self.folder)
        index.check_model(self._model)
        before, self._searcher = self.index, Searcher(index, self._model)
        if before is not None:  # closed when neither thread can be using it
            fast, slow = self._threads.values()
            fast.submit(slow.submit, before.close)

    def close(self) -> None:
        """Ends the threads, after the work that they have begun and does not end itself, and closes the index."""
        self._closing.set()
        for thread in self._threads.values():
            thread.shutdown(cancel_futures=True)
        if self.index is not None:
            self.index.close()

    @property
    def index(self) -> Index | None:
        """The opened index; None if it does not exist yet."""
        return None if self._searcher is None else self._searcher.index

    async def run(self, work: Callable[[Searcher], T], slow: bool = False) -> T:
        """Runs work on the searcher in a thread. Raises Refusal if there is no index yet, or it cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads[slow], self._run, work)

    async def run_long(self, work: Callable[[Searcher, Callable[[int, int], None]], T]) -> T:
        """Runs slow work as `run` does. The work must often call its second argument, which ends it if nobody waits."""
        gone = threading.Event()

        def report(done: int, total: int) -> None:
            if gone.is_set() or self._closing.is_set():
                raise Refusal(503, "service_ends", "the service has ended")

        try:
            return await self.run(lambda searcher: work(searcher, report), slow=True)
        finally:
            gone.set()

    def _run(self, work: Callable[[Searcher], T]) -> T:
        if self._searcher is None:
            raise Refusal(503, "no_index_yet", "the index is being made: try again later", {"Retry-After": "5"})
        try:
            return work(self._searcher)
        except JclipError as error:
            if isinstance(error, Refusal):
                raise
            _log.error("%s", error)
            raise Refusal(500, "index_damaged", "the index cannot be read: the service's log says why") from None
