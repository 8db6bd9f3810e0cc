"""Slices of TPU pods: their possible shapes, and their compile-only devices."""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import jax

from jclip.accelerators.shapes import Shape, named

CHIPS_PER_HOST = 4  # that one process drives; a host of v5e or v6e may have 8


@dataclass(frozen=True)
class TpuSlices:
    """Slices of a TPU generation's pods. Shapes are numbers of chips.

    Attributes:
      known: shapes, the smallest first.
      block: edge, in chips, of the cubes that larger slices consist of; 0 if `known` has every shape.
      largest: shape of the largest slice of cubes.
      devices_per_chip: jax devices of a chip: two if each core is a device, otherwise one.
      chip: name of libtpu's configuration of the chip; "" for its default.
    """

    known: tuple[Shape, ...]
    block: int = 0
    largest: Shape = ()
    devices_per_chip: int = 1
    chip: str = ""

    modules: ClassVar[tuple[str, ...]] = ("libtpu",)
    flags: ClassVar[tuple[str, ...]] = ()

    @property
    def possible(self) -> str:
        """Possible shapes, as text."""
        shapes = ", ".join(map(named, self.known))
        if not self.block:
            return shapes
        return f"{shapes}, or ascending multiples of {self.block} up to {named(self.largest)}"

    def has(self, shape: Shape) -> bool:
        """Returns True if this shape is possible."""
        if shape in self.known:
            return True
        return bool(
            self.block
            and len(shape) == len(self.largest)
            and list(shape) == sorted(shape)
            and all(0 < chips <= most for chips, most in zip(shape, self.largest, strict=True))
            and not any(chips % self.block for chips in shape)
        )

    def devices(self, shape: Shape) -> int:
        """Returns the number of devices of a slice."""
        return math.prod(shape) * self.devices_per_chip

    def hosts(self, shape: Shape) -> int:
        """Returns the number of hosts of a slice."""
        return -(-math.prod(shape) // CHIPS_PER_HOST)

    def with_devices(self, count: int) -> Shape | None:
        """Returns the smallest slice with at least `count` devices; None if there is none."""
        edges = range(self.block, max(self.largest) + 1, self.block) if self.block else ()
        cubes = filter(self.has, combinations_with_replacement(edges, len(self.largest)))
        enough = [shape for shape in (*self.known, *cubes) if self.devices(shape) >= count]
        return min(enough, key=math.prod, default=None)

    def needed(self, memory: Any) -> int:
        """Returns the bytes that a compiled program needs on a device, as libtpu compares them with its limit.

        `peak_memory_in_bytes` is the sum of arguments, results that are not written into them, and the temporaries that
        are alive at the same time. The number in libtpu's refusal is the same sum (measured with libtpu 0.0.42).
        """
        return int(memory.peak_memory_in_bytes)

    def compile_only(self, name: str, shape: Shape) -> list[jax.Device]:
        """Returns compile-only devices of a slice, in libtpu's order. Loads libtpu into this process."""
        from jax.experimental import topologies

        options: dict[str, Any] = {"chip_config_name": self.chip} if self.chip else {}
        if math.prod(shape) == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        return list(topologies.get_topology_desc(f"{name}:{named(shape)}", platform="tpu", **options).devices)
