"""Batches by step: a pure function of (seed, stage, step), so that any host can make any step again."""

import copy
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from jclip.data.batches.buckets import BucketedSteps
from jclip.data.batches.examples import INT32, Batch, Examples, Features, Where
from jclip.data.batches.features import DamagedCache
from jclip.data.batches.opened import OpenSources
from jclip.data.batches.order import Order
from jclip.data.batches.prefetch import prefetch
from jclip.data.batches.sampling import Captions, Unit, groups
from jclip.errors import JclipError
from jclip.tokenizers.padding import Texts

UnreadableRecords = dict[Where, str]
"""Reasons why something cannot be read."""

_TRIES = 64  # unreadable records in a row, after which the data counts as broken


class Batches:
    """Batches of a stage, made step by step. Raises JclipError if languages are needed, but not known.

    1. `Order` gives the units of the step's examples: (source, record).
    2. `Examples.draw` chooses what an example takes from its record, such as one image and one caption.
    3. `Examples.load` decodes the images, and `texts` tokenizes.
    4. `Examples.collate` stacks them into arrays.

    A batch holds the entries of `examples`, the token ids of the tower that trains, and "example" int32 (b,), the
    global example index modulo 2^31.

    Args:
      opened: sources, mixed by their weights.
      examples: builds examples from the records.
      batch_size: over all processes.
      seed, stage: seed of the run, and number of the stage; they decide the order.
      texts: tokenizes for the tower that trains, and pads to length buckets.
      bucket_window: number of steps whose texts are sorted by bucket together, see `BucketedSteps`; 1 for no sorting.
      captions, language_temperature: unit of an example, and weight of the languages, see `sampling.groups`.
      max_unreadable: maximum number of unreadable records and images, each counted once; one more is an error. They are
        replaced by the examples one epoch later (or two, …), so that a batch depends on the step alone.
      workers: processes that make batches; 0 for a thread of this one.
      rows: rows of every batch that this process makes; None for all.

    Attributes:
      text_name: see `Examples`.
      unreadable: messages about what was replaced so far.
      features: features of each source, see `with_features`; None if the towers run.
    """

    def __init__(
        self,
        opened: OpenSources,
        examples: Examples[Any],
        *,
        batch_size: int,
        seed: int,
        stage: int,
        texts: Texts,
        bucket_window: int = 1,
        captions: Captions = "one",
        language_temperature: float | None = None,
        max_unreadable: int = 0,
        workers: int = 0,
        rows: Sequence[int] | None = None,
    ):
        self.opened, self._examples, self._texts, self.text_name = opened, examples, texts, examples.text_name
        self._groups = groups(opened, captions, language_temperature)
        counts, weights = [group.count for group in self._groups], [group.weight for group in self._groups]
        self.examples_per_epoch = sum(counts)
        """Number of units of all sources: records, or pairs."""
        self._order = Order(counts, weights, seed, stage)
        self._steps = BucketedSteps(batch_size, bucket_window, (seed, stage), self._buckets)
        self._stage, self._max_unreadable, self._workers = stage, max_unreadable, workers
        self.unreadable: list[str] = []
        self._noted: set[Where] = set()
        self.features: Sequence[Features] | None = None
        # All processes must choose the same bucket. So with buckets, each reads all texts of a batch, else its own.
        mine = list(range(batch_size) if rows is None else rows)
        several = len(texts.lengths) > 1
        self._seen, self._own = (list(range(batch_size)), mine) if several else (mine, list(range(len(mine))))

    def with_features(self, features: Sequence[Features]) -> "Batches":
        """Returns the same batches with features of a frozen tower, one cache per source, instead of its inputs."""
        cached = copy.copy(self)
        cached.features = features
        return cached

    def __getitem__(self, step: int) -> Batch:
        """Returns this process's rows of the batch of a step, counted from 0.

        Raises JclipError if more than `max_unreadable` records or images cannot be read.
        """
        return self._checked(*self.make(step))

    def iterate(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yields batches from a step on, without end, made ahead by a thread or by worker processes."""
        with closing(prefetch(self.make, start_step, self._workers)) as made:
            for batch, unreadable in made:
                yield self._checked(batch, unreadable)

    def too_many(self, unreadable: Sequence[str]) -> JclipError | None:
        """Returns the error for the first message beyond `max_unreadable`, or None."""
        if len(unreadable) <= self._max_unreadable:
            return None
        limit = f"stages.{self._stage}.max_unreadable (now {self._max_unreadable})"
        first = unreadable[self._max_unreadable]
        return JclipError(f"{first}: repair or remove it, or raise {limit}, the number of replaced ones")

    def make(self, step: int) -> tuple[Batch | JclipError, tuple[tuple[Where, str], ...]]:
        """Returns a step's batch or an error, and what could not be read. Workers return it to their parent."""
        unreadable: UnreadableRecords = {}
        try:
            indices = self._steps[step]
            batch: Batch | JclipError = self._batch([indices[row] for row in self._seen], unreadable)
        except JclipError as error:
            batch = error
        return batch, tuple(unreadable.items())

    def _checked(self, batch: Batch | JclipError, unreadable: Iterable[tuple[Where, str]]) -> Batch:
        """Returns the batch after noting what could not be read."""
        for where, why in unreadable:
            if where in self._noted:
                continue
            if error := self.too_many([*self.unreadable, why]):
                raise error
            self._noted.add(where)
            self.unreadable.append(why)
        if isinstance(batch, JclipError):
            raise batch
        return batch

    def _batch(self, indices: Sequence[int], unreadable: UnreadableRecords) -> Batch:
        examples, own = self._examples, [indices[row] for row in self._own]
        # Draws all before loading any: alternating would evict the code and data of both from the CPU's cache.
        drawn = {index: self._draw(index, unreadable) for index in indices}
        # Replacing an unreadable image also replaces its text, and thus the bucket. So with buckets, each process loads
        # all images of a batch if any may be replaced.
        loaded = {
            index: self._load(index, drawn[index], unreadable) for index in (indices if self._max_unreadable else own)
        }
        drawn |= {index: example for index, (example, _) in loaded.items()}
        ids = self._texts([examples.text(drawn[index]) for index in indices])[self._own]
        return {
            **examples.collate([drawn[index] for index in own], [loaded[index][1] for index in own], self.features),
            self.text_name: ids,
            "example": (np.array(own, np.int64) % INT32).astype(np.int32),
        }

    def _buckets(self, indices: Sequence[int]) -> np.ndarray:
        """Returns the bucket of each example's text, (n,); of the replacement if it cannot be read."""
        draw = partial(self._draw, unreadable={})  # noted when the batch is made
        return self._texts.buckets([self._examples.text(draw(index)) for index in indices])

    def _draw(self, index: int, unreadable: UnreadableRecords) -> Any:
        """Returns an example; if its record cannot be read, the one an epoch later."""
        for epoch in range(_TRIES):
            place = index + epoch * self.examples_per_epoch
            unit = self._unit(place)
            try:
                record = self.opened.records[unit.source][unit.record]
            except JclipError as error:
                unreadable[unit.source, unit.record, -1] = str(error)
                continue
            return self._examples.draw(unit, record, self._order.random(place))
        raise JclipError(f"example {index}: {_TRIES} records in turn cannot be read: repair the data")

    def _load(self, index: int, example: Any, unreadable: UnreadableRecords) -> tuple[Any, Any]:
        """Returns an example and its loaded part; if that cannot be read, those an epoch later."""
        for epoch in range(_TRIES):
            if epoch:
                example = self._draw(index + epoch * self.examples_per_epoch, unreadable)
            try:
                return example, self._examples.load(example, index, self.features)
            except DamagedCache:
                raise
            except JclipError as error:
                unreadable[example.where] = str(error)
        raise JclipError(f"example {index}: {_TRIES} records in turn have unreadable images: repair the data")

    def _unit(self, place: int) -> Unit:
        group, number = self._order[place]
        return self._groups[group].unit(number)
