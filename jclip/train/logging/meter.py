"""How fast a run goes, and what it spends its time and arithmetic on, between one log line and the next."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import jax
import numpy as np

Flops = Callable[[Mapping[str, np.ndarray]], int]

# Dense bfloat16 peaks of one device as jax counts devices, in TFLOP/s, from the makers' data sheets. The longest
# name that begins the device's kind is taken.
_PEAKS = {
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4 lite": 138.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA GH200": 989.0,
    "NVIDIA B200": 2250.0,
    "NVIDIA A100": 312.0,
    "NVIDIA A10G": 70.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40": 181.0,
    "NVIDIA L40S": 362.0,
    "Tesla V100": 125.0,
    "Tesla T4": 65.0,
}


def peak_tflops(kind: str) -> float | None:
    """The peak of a device of that kind, in TFLOP/s of dense bfloat16; None where it is not known, as on a CPU."""
    return _PEAKS.get(max((name for name in _PEAKS if kind.startswith(name)), key=len, default=""))


class Meter:
    """Counts from one call of `read` to the next.

    Args:
      batch_size: pairs a step, over all devices.
      devices: of the mesh.
      flops: of a step on a batch; see `Arithmetic`. Asked for only where there is a peak to compare it with.
      peak: of one device, in TFLOP/s; None when unknown.
      pad_id: of the text in a batch.
    """

    def __init__(self, batch_size: int, devices: int, flops: Flops, peak: float | None, pad_id: int):
        self._batch_size, self._devices, self._flops, self._peak, self._pad = batch_size, devices, flops, peak, pad_id
        self._begin()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a batch."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - begun

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Around what is no training: evaluation, saving."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._apart += time.perf_counter() - begun

    def step(self, batch: Mapping[str, np.ndarray]) -> None:
        """Counts a step with this batch, of which a process sees its own rows."""
        self._steps += 1
        if self._peak is not None:
            self._arithmetic += self._flops(batch)
        for name in ("text", "student"):
            if name in batch:
                self._tokens += batch[name].size
                self._padding += int((batch[name] == self._pad).sum())

    def read(self) -> dict[str, float]:
        """The figures since the last reading, once the steps are done: call it after a result has arrived.

        Returns:
          "pairs_per_second", "pairs_per_second_per_device"; "data_wait", the share of time in which training stood
          still for want of a batch; "padding", the share of text tokens that are padding; and where the device's peak
          is known "mfu", the share of it that went into the model's arithmetic (Chowdhery et al. 2022, appendix B).
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
            figures["mfu"] = self._arithmetic / (elapsed * self._devices * self._peak * 1e12)
        self._begin()
        return figures

    def _begin(self) -> None:
        self._since = time.perf_counter()
        self._steps = self._tokens = self._padding = self._arithmetic = 0
        self._waited = self._apart = 0.0


def device_peak(given: float | None) -> float | None:
    """The peak of this process's devices in TFLOP/s: as given, or as known."""
    return given or peak_tflops(jax.local_devices()[0].device_kind)
