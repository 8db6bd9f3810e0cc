"""Speed of a run between two log lines, and profiles of chosen steps."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

Flops = Callable[[Mapping[str, np.ndarray]], int]


class Meter:
    """Throughput, and the shares of waiting and padding, from one call of `read` to the next.

    Args:
      batch_size: pairs per step, over all devices.
      devices: number of devices of the mesh.
      flops: returns the FLOPs of a step on a batch, see `Arithmetic`; None without a peak.
      peak: peak of one device, FLOP/s; None if unknown.
      text_name: batch entry with the ids of the texts, see `Examples`.
      pad_id: padding id of the texts.
    """

    def __init__(
        self, batch_size: int, devices: int, flops: Flops | None, peak: float | None, text_name: str, pad_id: int
    ):
        self._batch_size, self._devices, self._text_name, self._pad_id = batch_size, devices, text_name, pad_id
        self._flops, self._peak = flops, peak
        self._begin()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of the block as waiting for data."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - begun

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Excludes the time of the block, such as evaluation and saving."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._apart += time.perf_counter() - begun

    def step(self, batch: Mapping[str, np.ndarray]) -> None:
        """Counts a step on this process's rows of a batch."""
        self._steps += 1
        if self._flops is not None:
            self._arithmetic += self._flops(batch)
        ids = batch[self._text_name]
        self._tokens += ids.size
        self._padding += int((ids == self._pad_id).sum())

    def read(self) -> dict[str, float]:
        """Returns the figures since the last call. Call it after the last step's result is computed.

        "data_wait" is the share of time spent waiting for batches, "padding" the share of text tokens that are padding,
        and "mfu", with a known peak, the model FLOPs utilisation (Chowdhery et al. 2022, appendix B).
        """
        elapsed = max(time.perf_counter() - self._since - self._apart, 1e-9)
        speed = self._steps * self._batch_size / elapsed
        figures = {
            "pairs_per_second": speed,
            "pairs_per_second_per_device": speed / self._devices,
            "data_wait": min(self._waited / elapsed, 1.0),
            "padding": self._padding / max(self._tokens, 1),
        }
        if self._peak is not None:
            figures["mfu"] = self._arithmetic / (elapsed * self._devices * self._peak)
        self._begin()
        return figures

    def _begin(self) -> None:
        self._since = time.perf_counter()
        self._steps = self._tokens = self._padding = self._arithmetic = 0
        self._waited = self._apart = 0.0


class Profiler:
    """Profiler of `count` steps from step `first` of the run. Writes a trace to `folder` for XProf or Perfetto."""

    def __init__(self, folder: Path, first: int, count: int):
        self._folder, self._begin, self._end = folder, first, first + count
        self._running = False

    def before_step(self, total: int) -> None:
        """Starts the profile if it begins after `total` steps."""
        if self._end > self._begin == total:
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after_step(self, total: int, result: jax.Array) -> None:
        """Ends the profile if it ends after `total` steps, when `result` of the last step is computed."""
        if self._running and total == self._end:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a profile that is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
