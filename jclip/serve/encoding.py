"""Vectors of texts and images, within the limit on what may wait."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.serve.batching import IMAGE, TEXT, Batcher
from jclip.serve.images import Images, ImageSource
from jclip.serve.limits import Limits
from jclip.serve.refusals import Refusal

_log = logging.getLogger(__name__)
_LONGEST_WAIT = 60  # seconds, in Retry-After

Item = str | ImageSource


class Encoding:
    """Encodes the items of requests. It is used from one event loop."""

    def __init__(self, batcher: Batcher, images: Images, limits: Limits):
        self._batcher, self._images, self._limits = batcher, images, limits
        self.accepted = 0
        self._finished, self._since = 0, time.monotonic()

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Holds places in the queue within the block. Raises Refusal, 429, if it is full."""
        if self.accepted + count > self._limits.max_queue:
            raise Refusal(
                429,
                "queue_limit",
                f"{self.accepted} items wait, and the limit is {self._limits.max_queue} (--max-queue): try again later",
                {"Retry-After": str(self._wait())},
            )
        if not self.accepted:
            self._finished, self._since = 0, time.monotonic()
        self.accepted += count
        try:
            yield
        finally:
            self.accepted -= count
            self._finished += count

    async def encode(self, items: Sequence[Item]) -> list[np.ndarray | Refusal]:
        """Returns for each item its vector, (d,) float32, L2-normalised, or its error.

        Raises Refusal, 429, if the queue is full.
        """
        with self.places(len(items)):
            texts = [number for number, item in enumerate(items) if isinstance(item, str)]
            sources = {number: item for number, item in enumerate(items) if isinstance(item, ImageSource)}
            found: list[Any] = [None] * len(items)
            await asyncio.gather(self._texts(items, texts, found), self._read(sources, found))
            return found

    async def one(self, item: Item) -> np.ndarray:
        """Returns the vector of one item. Raises Refusal."""
        (found,) = await self.encode([item])
        if isinstance(found, Refusal):
            raise found
        return found

    async def _texts(self, items: Sequence[Item], numbers: Sequence[int], found: list[Any]) -> None:
        await self._vectors(TEXT, numbers, [items[number] for number in numbers], found)

    async def _read(self, sources: dict[int, ImageSource], found: list[Any]) -> None:
        pictures = dict(zip(sources, await self._images.read(list(sources.values())), strict=True))
        found_errors = {number: each for number, each in pictures.items() if isinstance(each, Refusal)}
        for number, error in found_errors.items():
            found[number] = error
        good = [number for number in pictures if number not in found_errors]
        await self._vectors(IMAGE, good, [pictures[number] for number in good], found)

    async def _vectors(self, lane: str, numbers: Sequence[int], inputs: Sequence[Any], found: list[Any]) -> None:
        forms = await asyncio.to_thread(self._batcher.forms, lane, inputs)
        outputs = await asyncio.wrap_future(self._batcher.submit(lane, inputs, forms))
        for number, output in zip(numbers, outputs, strict=True):
            found[number] = _failed(output) if isinstance(output, Exception) else output

    def _wait(self) -> int:
        """Returns the seconds after which the queue will probably be empty."""
        seconds = max(time.monotonic() - self._since, 0.1)
        return max(1, min(_LONGEST_WAIT, math.ceil(self.accepted * seconds / max(self._finished, 1))))


def _failed(error: Exception) -> Refusal:
    if isinstance(error, JclipError):
        return Refusal(424, "inference_failed", f"the model cannot encode it: {error}")
    _log.error("encoding failed: %s", error, exc_info=error)
    return Refusal(424, "inference_failed", "the model cannot encode it: the service's log says why")
