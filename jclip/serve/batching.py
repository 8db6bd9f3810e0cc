"""Model thread: encodes what waits in batches, without a timer.

Whenever the model is free it takes what waits, up to the largest batch, and pads it to a shape that is compiled. A
request that comes alone is not delayed, and a batch grows with the load.

Requests wait in lanes: texts, images, and the images of a background job. The model serves the lanes in turn, and takes
one item of each request of a lane before the second of any. So one kind, or one large request, cannot shut out others.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from jclip.bundle import Bundle

TEXT, IMAGE, BACKGROUND = "text", "image", "background"
LANES = (TEXT, IMAGE, BACKGROUND)
_LENGTHS = 16  # a text batch is padded to a multiple of this number of tokens, see jclip.inference


class Encodes(Protocol):
    """Model as the service uses it: `jclip.inference.Model`, or an ONNX export."""

    bundle: Bundle
    similarity_scale: float

    def encode_image(self, pictures: Any) -> np.ndarray:
        """Returns (n, d) float32, L2-normalised, of uint8 (n, size, size, 3)."""

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Returns (n, d) float32, L2-normalised."""


@dataclass
class Job:
    """Items of one request in one lane. `future` gets a list: a vector or an exception for each item."""

    inputs: Sequence[Any]
    future: "Future[list[np.ndarray | Exception]]" = field(default_factory=Future)
    taken: int = 0
    missing: int = 0
    outputs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing, self.outputs = len(self.inputs), [None] * len(self.inputs)


class Batcher:
    """Queue in front of a model, and the thread that serves it.

    Args:
      model: the model; its own batch size must be at least `largest`.
      largest: maximum number of items in a batch.
      observe: called after each batch with its lane, number of items and seconds.
    """

    def __init__(self, model: Encodes, largest: int, observe: Callable[[str, int, float], None]):
        self._model, self._largest, self._observe = model, largest, observe
        self._lanes: dict[str, deque[Job]] = {lane: deque() for lane in LANES}
        self._waiting = threading.Condition()
        self._stopping = False
        self._warm = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="jclip-model", daemon=True)

    @property
    def warm(self) -> bool:
        """True when every shape is compiled."""
        return self._warm.is_set()

    def start(self) -> None:
        """Starts the thread, which compiles every shape before it serves requests."""
        self._thread.start()

    def wait_until_warm(self) -> None:
        """Blocks until every shape is compiled."""
        self._warm.wait()

    def stop(self) -> None:
        """Encodes what still waits, except the background job's images, and ends the thread."""
        with self._waiting:
            self._stopping = True
            self._waiting.notify()
        self._thread.join()

    def depth(self, lane: str) -> int:
        """Returns the number of items that wait in a lane."""
        with self._waiting:
            return sum(len(job.inputs) - job.taken for job in self._lanes[lane] if not job.future.cancelled())

    def submit(self, lane: str, inputs: Sequence[Any]) -> "Future[list[np.ndarray | Exception]]":
        """Adds the items of a request: strings, or uint8 images (size, size, 3) of the model's size.

        Returns a future of a list: for each item its vector, (d,) float32, or the exception that its encoding raised.
        To give up the places in the queue, cancel the future.
        """
        job = Job(inputs)
        if not inputs:
            job.future.set_result([])
            return job.future
        with self._waiting:
            self._lanes[lane].append(job)
            self._waiting.notify()
        return job.future

    def _serve(self) -> None:
        try:
            warm_up(self._model, self._largest, lambda: self._stopping)
        except Exception as error:  # shown by /health; requests fail with their own errors
            self.failure = error
        else:
            self._warm.set()
        last = BACKGROUND
        while True:
            with self._waiting:
                self._waiting.wait_for(lambda: self._stopping or any(self._lanes.values()))
                if self._stopping:
                    self._drop(BACKGROUND)
                    if not any(self._lanes.values()):
                        return
                last = next(lane for lane in _after(last) if self._lanes[lane])
                batch = self._take(self._lanes[last])
            if batch:
                self._encode(last, batch)

    def _take(self, lane: "deque[Job]") -> list[tuple[Job, int]]:
        """Returns the next items as (job, number), one of each job in turn. Drops cancelled jobs."""
        batch: list[tuple[Job, int]] = []
        while lane and len(batch) < self._largest:
            job = lane.popleft()
            if job.future.cancelled():
                continue
            batch.append((job, job.taken))
            job.taken += 1
            if job.taken < len(job.inputs):
                lane.append(job)
        return batch

    def _drop(self, lane: str) -> None:
        while self._lanes[lane]:
            self._lanes[lane].popleft().future.cancel()

    def _encode(self, lane: str, batch: Sequence[tuple[Job, int]]) -> None:
        started = time.perf_counter()
        inputs = [job.inputs[number] for job, number in batch]
        for (job, number), output in zip(batch, self._outputs(lane, inputs), strict=True):
            job.outputs[number] = output
            job.missing -= 1
            if not job.missing:
                with suppress(InvalidStateError):  # cancelled meanwhile
                    job.future.set_result(job.outputs)
        self._observe(lane, len(batch), time.perf_counter() - started)

    def _outputs(self, lane: str, inputs: Sequence[Any]) -> list[Any]:
        """Returns a vector or an exception for each input. If a batch fails, encodes its items one by one."""
        try:
            return list(_encoded(self._model, lane, inputs))
        except Exception as error:
            if len(inputs) == 1:
                return [error]
            return [each for one in inputs for each in self._outputs(lane, [one])]


def _after(lane: str) -> tuple[str, ...]:
    place = LANES.index(lane) + 1
    return LANES[place:] + LANES[:place]


def _encoded(model: Encodes, lane: str, inputs: Sequence[Any]) -> np.ndarray:
    return model.encode_text(inputs) if lane == TEXT else model.encode_image(np.stack(inputs))


def shapes(largest: int) -> list[int]:
    """Returns the sizes of compiled batches.

    >>> shapes(8), shapes(6)
    ([1, 2, 4, 8], [1, 2, 4, 6])
    """
    return [*(1 << power for power in range((largest - 1).bit_length())), largest]


def warm_up(model: Encodes, largest: int, stopped: Callable[[], bool]) -> None:
    """Compiles every shape that a batch of at most `largest` items can have; ends early if `stopped()`."""
    preprocessing = model.bundle.preprocessing
    for size in shapes(largest):
        if preprocessing is not None and not stopped():
            model.encode_image(np.zeros((size, preprocessing.size, preprocessing.size, 3), np.uint8))
        for text in _lengths(model.bundle):
            if not stopped():
                model.encode_text([text] * size)


def _lengths(bundle: Bundle) -> list[str]:
    """Returns one text for each length to which texts are padded."""
    longest = bundle.context_length
    found: dict[int, str] = {}
    for words in range(1, longest + 1):
        text = "a " * words
        tokens = len(bundle.tokenizer.encode([text], longest)[0])
        found.setdefault(min(longest, -(-tokens // _LENGTHS) * _LENGTHS), text)
    return list(found.values())
