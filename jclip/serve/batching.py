"""Model thread: encodes what waits in batches, without a timer.

Whenever the model is free it takes of what waits the number of items that is encoded fastest, up to the largest batch.
A request that comes alone is not delayed, and a batch grows with the load.

Requests wait in lanes: texts, images, and the images of a background job; texts of about the same length share a lane,
so that a long one does not pad the others. The model serves the lane whose first item has waited longest, where the
second item of a request counts as if it had come a round later than the first. So one kind, or one large request,
cannot shut out others.
"""

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.serve.speeds import Encodes, Form, Speeds, encoded, form_of_texts, warm_up

_log = logging.getLogger(__name__)

TEXT, IMAGE, BACKGROUND = "text", "image", "background"
LANES = (TEXT, IMAGE, BACKGROUND)

Answer = Future[list[np.ndarray | Exception]]
"""Future of a list: for each item its vector, (d,) float32, or the exception that its encoding raised."""


@dataclass
class _Job:
    """Items of one request."""

    inputs: Sequence[Any]
    future: Answer = field(default_factory=Future)
    missing: int = 0
    outputs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing, self.outputs = len(self.inputs), [None] * len(self.inputs)

    def finish(self, number: int, output: np.ndarray | Exception) -> None:
        """Notes the output of an item, and with the last one answers."""
        self.outputs[number] = output
        self.missing -= 1
        if not self.missing:
            with suppress(InvalidStateError):  # cancelled meanwhile
                self.future.set_result(self.outputs)


@dataclass(order=True)
class _Share:
    """Items of a request that wait in one lane. They are sorted by `round` and `place`.

    Attributes:
      round: number of the round in which the next item is due: each round has an item of every request.
      place: place of the request among all.
      job: the request.
      numbers: numbers of the items.
    """

    round: int
    place: int
    job: _Job = field(compare=False)
    numbers: deque[int] = field(compare=False, default_factory=deque)


@dataclass
class _Lane:
    """Heap of requests whose items have one form."""

    form: Form
    heap: list[_Share] = field(default_factory=list)

    @property
    def first(self) -> _Share | None:
        """The request that is next; drops cancelled ones before it."""
        while self.heap and self.heap[0].job.future.cancelled():
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    @property
    def waiting(self) -> int:
        """Number of items that wait."""
        return sum(len(share.numbers) for share in self.heap if not share.job.future.cancelled())

    def take(self, count: int) -> list[tuple[_Job, int]]:
        """Returns the next items."""
        batch: list[tuple[_Job, int]] = []
        while len(batch) < count and (share := self.first):
            batch.append((share.job, share.numbers.popleft()))
            if share.numbers:
                share.round += 1
                heapq.heapreplace(self.heap, share)
            else:
                heapq.heappop(self.heap)
        return batch


class Batcher:
    """Queue in front of a model, and the thread that serves it.

    Args:
      model: the model; its own batch size must be at least `largest`.
      largest: maximum number of items in a batch.
      observe: called after each batch with its lane, number of items and seconds.
      clock: returns seconds.

    Attributes:
      warm: True when every shape is compiled.
      failure: error that ended the compilation; None if there was none.
    """

    def __init__(
        self,
        model: Encodes,
        largest: int,
        observe: Callable[[str, int, float], None],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._model, self._largest, self._observe, self._clock = model, largest, observe, clock
        self._lanes: dict[str, dict[Form, _Lane]] = {kind: {} for kind in LANES}
        self._round, self._places = 0, itertools.count()
        self._speeds: dict[Form, Speeds] = {}
        self._waiting = threading.Condition()
        self._stopping = False
        self._compiling = True
        self.warm = False
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="jclip-model", daemon=True)

    def start(self) -> None:
        """Starts the thread. It compiles every shape, and between two shapes serves requests."""
        self._thread.start()

    def stop(self) -> None:
        """Encodes what still waits, except the background job's images, and ends the thread."""
        with self._waiting:
            self._stopping = True
            self._waiting.notify()
        self._thread.join()

    def depth(self, kind: str) -> int:
        """Returns the number of texts, images or images of the background job that wait."""
        with self._waiting:
            return sum(lane.waiting for lane in self._lanes[kind].values())

    def submit(self, kind: str, inputs: Sequence[Any], forms: Sequence[Form] | None = None) -> Answer:
        """Adds the items of a request: strings, or uint8 images (size, size, 3) of the model's size.

        `forms` are those that `self.forms` returns, if they are known. To give up the places in the queue, cancel the
        future.
        """
        job = _Job(inputs)
        if not inputs:
            job.future.set_result([])
            return job.future
        numbers: dict[Form, deque[int]] = {}
        for number, form in enumerate(self.forms(kind, inputs) if forms is None else forms):
            numbers.setdefault(form, deque()).append(number)
        with self._waiting:
            for form, some in numbers.items():
                share = _Share(self._round + 1, next(self._places), job, some)
                heapq.heappush(self._lanes[kind].setdefault(form, _Lane(form)).heap, share)
            self._waiting.notify()
        return job.future

    def forms(self, kind: str, inputs: Sequence[Any]) -> list[Form]:
        """Returns the form of each item. Texts are tokenised for it, which takes long for long ones."""
        if kind != TEXT:
            return [Form(False)] * len(inputs)
        try:
            return form_of_texts(self._model.bundle, inputs)
        except JclipError:  # the model's own error is the item's
            return [Form(True, self._model.bundle.context_length)] * len(inputs)

    def _serve(self) -> None:
        try:
            for _ in warm_up(self._model, self._largest, self._speeds, self._clock):
                if self._stopping:
                    break
                self._serve_batch(wait=False)
        except Exception as error:  # /health reports it; requests fail with their own errors
            _log.exception("the model cannot be compiled")
            self.failure = error
        else:
            self.warm = True
        self._compiling = False
        while self._serve_batch():
            pass

    def _serve_batch(self, wait: bool = True) -> bool:
        """Encodes a batch, if something waits or may be waited for; returns False at the end."""
        with self._waiting:
            if wait:
                self._waiting.wait_for(lambda: self._stopping or self._ready())
            if self._stopping:
                self._drop_background()
            ready = self._ready()
            if not ready:
                return False
            first, kind, lane = min(ready, key=lambda each: each[0])
            self._round = first.round
            batch = lane.take(self._count(lane))
        self._encode(kind, lane.form, batch)
        return True

    def _ready(self) -> list[tuple[_Share, str, _Lane]]:
        """Returns the lanes in which something waits; while shapes are compiled, those of which one is."""
        return [
            (first, kind, lane)
            for kind, lanes in self._lanes.items()
            for lane in lanes.values()
            if (first := lane.first) and (not self._compiling or self._speeds.get(lane.form))
        ]

    def _count(self, lane: _Lane) -> int:
        speeds = self._speeds.get(lane.form)
        return speeds.best(lane.waiting) if speeds else self._largest

    def _drop_background(self) -> None:
        for lane in self._lanes[BACKGROUND].values():
            while lane.heap:
                lane.heap.pop().job.future.cancel()

    def _encode(self, kind: str, form: Form, batch: Sequence[tuple[_Job, int]]) -> None:
        started = self._clock()
        outputs = self._outputs(form, [job.inputs[number] for job, number in batch])
        for (job, number), output in zip(batch, outputs, strict=True):
            job.finish(number, output)
        self._observe(kind, len(batch), self._clock() - started)

    def _outputs(self, form: Form, inputs: Sequence[Any]) -> list[Any]:
        """Returns a vector or an exception for each input. If a batch fails, encodes its items one by one."""
        try:
            return list(encoded(self._model, form, inputs))
        except Exception as error:
            if len(inputs) == 1:
                return [error]
            return [each for one in inputs for each in self._outputs(form, [one])]
