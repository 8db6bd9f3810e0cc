"""Encodes the pending images and texts of a plan, batch by batch, and stores each batch's outcomes together."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from jclip.bundle import Bundle
from jclip.errors import JclipError
from jclip.images.opening import UNDECODABLE
from jclip.images.preprocess import Orientation, Preprocessing
from jclip.search.decoding import Read, Trouble, content_hash
from jclip.search.entries import IMAGE, TEXT, stored_meta
from jclip.search.progress import Meter, Watcher
from jclip.search.sources.items import Container, Content, Part, Reader
from jclip.search.work import Done, Planned, Work, key_of, key_of_path
from jclip.search.workers import Workers

_STORED_AT_ONCE = 1000  # outcomes
_INVALID = "the given vector is not valid"
_NEARLY = 1e-3
"""Given vectors whose length differs from 1 by less keep their values, so that copies of them are exact."""


class Embedder(Protocol):
    """Model that embeds: `jclip.Model`, or an exported one."""

    bundle: Bundle

    @property
    def identity(self) -> str:
        """Digest of its contents."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def source(self) -> str:
        """Path or address from which `jclip.load` loads it; empty for a model made in memory."""

    @property
    def embed_dim(self) -> int:
        """Size of a vector."""

    def encode_image(self, pictures: np.ndarray) -> np.ndarray:
        """Encodes uint8 (n, size, size, 3) as float32 (n, dim), L2-normalised."""

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Encodes texts as float32 (n, dim), L2-normalised."""


@dataclass(frozen=True)
class Encoding:
    """Settings of encoding.

    Attributes:
      model: returns the model; called only if something must be encoded. None to find out only what is new.
      orientation: as in `Preprocessing`.
      workers: number of processes that decode images; 0 for a thread.
      batch_size: number of images or texts encoded at once.
      watch: called with the progress.
    """

    model: Callable[[], Embedder] | None
    orientation: Orientation
    workers: int
    batch_size: int
    watch: Watcher | None = None


def encode_pending(work: Work, listers: Sequence[Container], how: Encoding) -> int:
    """Encodes what has no outcome yet, and returns the number of new contents.

    Items are taken in the order of the plan, and a batch is as large as `how` says: so the vectors are the same,
    however often the work was interrupted. Raises JclipError if the model has no image tower, or features are not
    finite.
    """
    total = work.number("SELECT count(*) FROM plan")
    before = total - work.number(
        "SELECT count(*) FROM plan LEFT JOIN done ON done.path = plan.path WHERE done.path IS NULL AND NOT unchanged"
    )
    lost = work.number("SELECT count(*) FROM lost")
    meter = Meter(how.watch, total, before, lost, work.number("SELECT count(*) FROM done"))
    new = 0
    with ThreadPoolExecutor(1, thread_name_prefix="encoding") as thread:
        for encode_kind in (_images, _texts, _given):
            batches = _Batches(work, meter, how.batch_size, thread)
            encode_kind(work, listers, how, batches)
            batches.finish()
            new += batches.new
    meter.finish()
    return new


@dataclass
class _Batch:
    """New contents that are encoded together, and the outcomes that depend on them."""

    done: list[Done] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)


class _Batches:
    """Gatherer of batches. One is encoded by a thread while the next is gathered."""

    encode: Callable[[list[Any]], np.ndarray]

    def __init__(self, work: Work, meter: Meter, size: int, thread: ThreadPoolExecutor):
        self.encode = _no_vectors
        self.new = 0
        self._work, self._meter, self._size, self._thread = work, meter, size, thread
        self._batch = _Batch()
        self._running: tuple[_Batch, Future[np.ndarray]] | None = None
        self._waiting: set[bytes] = set()  # keys of the two batches
        self._settled: list[Done] = []  # outcomes that depend on no batch

    def skip(self, item: Planned, trouble: Trouble) -> None:
        self._settle(Done(item.path, item.stamp, reason=trouble.reason, detail=trouble.detail))
        self._meter.advance(skipped=1)

    def is_known(self, key: bytes) -> bool:
        return key in self._waiting or self._work.known(key)

    def add(self, done: Done, content: Any = None) -> None:
        """Adds an outcome; with a content if that is new, and must be encoded."""
        assert done.key is not None, "an image or text that is not skipped has a key"
        self._meter.advance()
        if content is None and done.key not in self._waiting:
            self._settle(done)
            return
        self._batch.done.append(done)
        if content is None:
            return
        self._waiting.add(done.key)
        self._batch.keys.append(done.key)
        self._batch.inputs.append(content)
        self.new += 1
        if len(self._batch.keys) == self._size:
            self._start()

    def finish(self) -> None:
        """Encodes and stores what is left."""
        if self._batch.keys:
            self._start()
        self._store()
        self._work.finish([*self._batch.done, *self._settled], [], _no_vectors([]))

    def _settle(self, done: Done) -> None:
        self._settled.append(done)
        if len(self._settled) >= _STORED_AT_ONCE:
            self._work.finish(self._settled, [], _no_vectors([]))
            self._settled = []

    def _start(self) -> None:
        self._store()
        batch, self._batch = self._batch, _Batch()
        self._running = batch, self._thread.submit(self.encode, batch.inputs)

    def _store(self) -> None:
        if self._running is not None:
            (batch, features), self._running = self._running, None
            self._work.finish([*batch.done, *self._settled], batch.keys, features.result())
            self._settled = []
            self._waiting = set(self._batch.keys)


def _no_vectors(inputs: list[Any]) -> np.ndarray:
    return np.zeros((len(inputs), 0), np.float32)


def _images(work: Work, listers: Sequence[Container], how: Encoding, batches: _Batches) -> None:
    """Decodes images in workers, ahead of the model, and encodes them."""
    condition = f"plan.kind = '{IMAGE}' AND plan.vector IS NULL"
    if next(work.pending(condition), None) is None:
        return
    preprocessing = Preprocessing()
    if how.model is not None:
        model = how.model()
        if model.bundle.preprocessing is None:
            raise JclipError(f"{model.name} is a text encoder without an image tower: name another model")
        preprocessing = model.bundle.preprocessing
        batches.encode = lambda pixels: model.encode_image(np.stack(pixels))

    def known(hash: bytes) -> bool:
        return how.model is None or work.known(key_of(IMAGE, hash))

    waiting: deque[tuple[Planned, Trouble | None]] = deque()

    def contents() -> Iterator[Content]:
        with ExitStack() as stack:
            readers: dict[int, Reader] = {}
            for item in work.pending(condition):
                found = _content(item, listers, readers, stack)
                waiting.append((item, found if isinstance(found, Trouble) else None))
                if not isinstance(found, Trouble):
                    yield found

    preprocessing = replace(preprocessing, orientation=how.orientation)
    with Workers(how.workers, preprocessing, known, ahead=2 * how.batch_size) as workers:
        for outcome in workers.decoded(contents()):
            while (trouble := waiting[0][1]) is not None:
                batches.skip(waiting.popleft()[0], trouble)
            _take(batches, waiting.popleft()[0], outcome)
        for item, trouble in waiting:
            assert trouble is not None, "the workers decode all others"
            batches.skip(item, trouble)


def _take(batches: _Batches, item: Planned, outcome: Read | Trouble) -> None:
    if isinstance(outcome, Trouble):
        batches.skip(item, outcome)
        return
    key = key_of(IMAGE, outcome.hash)
    facts = outcome.width, outcome.height, outcome.date, stored_meta(outcome.facts)
    new = not batches.is_known(key)
    batches.add(Done(item.path, item.stamp, key, *facts), _pixels(outcome) if new else None)


def _pixels(outcome: Read) -> Any:
    return () if outcome.pixels is None else outcome.pixels


def _content(
    item: Planned, listers: Sequence[Container], readers: dict[int, Reader], stack: ExitStack
) -> Content | Trouble:
    """Returns the content of an image. Only the reader of the last container stays open."""
    if item.lister is None:
        return Part(item.path)
    try:
        if item.lister not in readers:
            stack.close()
            readers.clear()
            readers[item.lister] = stack.enter_context(listers[item.lister].reader())
        return readers[item.lister](item.position or 0, item.size or 0)
    except (OSError, JclipError) as error:
        return Trouble(UNDECODABLE, str(error))


def _texts(work: Work, listers: Sequence[Container], how: Encoding, batches: _Batches) -> None:
    """Encodes texts."""
    condition = f"plan.kind = '{TEXT}' AND plan.vector IS NULL"
    if how.model is not None and next(work.pending(condition), None) is not None:
        model = how.model()
        batches.encode = model.encode_text
    for item in work.pending(condition):
        text = item.text or ""
        key = key_of(TEXT, content_hash(text.encode()))
        batches.add(Done(item.path, item.stamp, key), None if batches.is_known(key) else text)


def _given(work: Work, listers: Sequence[Container], how: Encoding, batches: _Batches) -> None:
    """Copies given vectors, L2-normalised."""
    if how.model is not None:
        batches.encode = np.stack
    some: list[Planned] = []
    for item in work.pending("plan.vector IS NOT NULL"):
        if some and (item.lister != some[0].lister or len(some) == how.batch_size):
            _copy(some, listers, batches)
            some = []
        some.append(item)
    if some:
        _copy(some, listers, batches)


def _copy(items: Sequence[Planned], listers: Sequence[Container], batches: _Batches) -> None:
    lister = listers[items[0].lister or 0]
    rows_nd = lister.vectors([item.vector or 0 for item in items])
    lengths_n = np.linalg.norm(rows_nd.astype(np.float64), axis=1)
    for item, row_d, length in zip(items, rows_nd, lengths_n, strict=True):
        if not (np.isfinite(length) and length > 0):
            batches.skip(item, Trouble(_INVALID, f"its length is {length:g}"))
            continue
        key = key_of_path(item.path) if item.hash is None else key_of(item.kind, item.hash)
        done = Done(item.path, item.stamp, key)
        vector_d = row_d if abs(length - 1) < _NEARLY else row_d / length
        batches.add(done, None if batches.is_known(key) else vector_d)
