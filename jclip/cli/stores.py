"""Vector databases on the command line: pushes to them, with progress, and what they report."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from jclip.console import Console, facts, text
from jclip.search.index import Index
from jclip.search.recall import AnnMeasurements
from jclip.search.stores.addresses import parse_address
from jclip.search.stores.measuring import build_and_measure
from jclip.search.stores.opening import open_store
from jclip.search.stores.pushing import Pushed, push, source_of
from jclip.search.stores.store import Store
from jclip.units import format_duration


@dataclass(frozen=True)
class PushReport:
    """Report of a push.

    Attributes:
      address: place of the table, without a password.
      source: name of the index in the table.
      pushed: numbers of rows.
      ann: measurements of the approximate index, if one was built.
    """

    address: str
    source: str
    pushed: Pushed
    ann: AnnMeasurements | None = None

    def record(self) -> dict[str, Any]:
        """Returns the report as JSON."""
        return asdict(self)

    def table(self, index: object) -> Table:
        """Returns the report for people."""
        table = facts(index)
        for name, value in self._words():
            table.add_row(text(name), text(value, longest=None))
        return table

    def _words(self) -> list[tuple[str, str]]:
        counts = [f"{count:,} {name}" for name, count in asdict(self.pushed).items() if count or name == "written"]
        rows = [("database", self.address), ("name in it", self.source), ("rows", ", ".join(counts))]
        return rows + (measurement_words(self.ann) if self.ann is not None else [])


def measurement_words(ann: AnnMeasurements) -> list[tuple[str, str]]:
    """Returns the measurements of an approximate index as rows of a name and a value."""
    texts = [("recall@10 of texts", f"{ann.text_recall:.3f}, {ann.text_queries} queries")] if ann.text_queries else []
    times = f"{ann.query_ms:.2g} ms a query, exact {ann.exact_query_ms:.2g} ms"
    return [
        ("recall@10", f"{ann.recall:.3f}, {ann.queries} queries"),
        *texts,
        ("time", f"built in {format_duration(ann.build_seconds)}; {times}"),
    ]


def check_store(to: str) -> None:
    """Raises JclipError if the database at an address cannot be reached: before long work."""
    open_store(parse_address(to)).close()


@contextmanager
def store_of(index: Index, to: str) -> Iterator[Store]:
    """Opens the table at an address for the rows of an index."""
    address = parse_address(to)
    with closing(open_store(replace(address, source=source_of(address, index.folder)))) as store:
        yield store


def push_with_progress(
    index: Index, store: Store, console: Console, ann: bool = False, texts_nd: np.ndarray | None = None
) -> PushReport:
    """Pushes an index, and shows the progress; with `ann` also builds an approximate index and measures it."""
    with console.working("comparing with the database") as say:
        start = time.monotonic()

        def show(done: int) -> None:
            left = (time.monotonic() - start) / done * (len(index) - done)
            say(f"writing: {done:,} of {len(index):,} entries, about {format_duration(left)} left")

        pushed = push(index, store, show)
        found = build_and_measure(index, store, texts_nd, say) if ann else None
    return PushReport(str(store.address), store.address.source or "", pushed, found)
