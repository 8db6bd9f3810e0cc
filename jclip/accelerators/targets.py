"""Accelerators for which jclip can compile, with their published figures.

Figures are of one jax device. That is a chip, except on TPU v3 and TPU7x: there it is one of a chip's two cores, and
has half of the chip's figures. On v4 and v5p both cores of a chip are one device ("megacore").
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax

from jclip.accelerators.hosts import Gpu, Hosts
from jclip.accelerators.shapes import Shape, named
from jclip.accelerators.slices import CHIPS_PER_HOST, Slices
from jclip.errors import JclipError
from jclip.names import suggestion
from jclip.plain import shown

GPU_SHARE = 0.92
"""Share of a GPU's memory that programs may use with XLA_CLIENT_MEM_FRACTION=0.92, as `jclip train` sets it.

jax's default is 0.75. The rest is left to the CUDA context and to NCCL's buffers.
"""


class Arrangement(Protocol):
    """Interface of the shapes in which a target can be had, and of its compiler.

    Attributes:
      modules: modules that its compiler needs, of `jclip.extras`.
      flags: flags of XLA without which its compiler does not work here.
    """

    modules: ClassVar[tuple[str, ...]]
    flags: ClassVar[tuple[str, ...]]

    @property
    def possible(self) -> str:
        """Shapes that can be had, as text."""

    def has(self, shape: Shape) -> bool:
        """Returns True if this shape can be had."""

    def devices(self, shape: Shape) -> int:
        """Returns the number of devices of a shape."""

    def hosts(self, shape: Shape) -> int:
        """Returns the number of hosts of a shape."""

    def with_devices(self, count: int) -> Shape | None:
        """Returns the smallest shape with at least `count` devices; None if there is none."""

    def needed(self, memory: Any) -> int:
        """Returns the bytes that a compiled program needs on a device, from its `memory_analysis()`."""

    def compile_only(self, name: str, shape: Shape) -> list[jax.Device]:
        """Returns compile-only devices of a shape. Loads the target's compiler into this process."""


@dataclass(frozen=True)
class Target:
    """An accelerator.

    Attributes:
      name: name for the command line: "v5e".
      title: name for people.
      platform: "tpu" or "cuda".
      memory: bytes of a device that a program may use. On TPUs it is the limit that the compiler enforces, on GPUs a
        share of the memory, see GPU_SHARE.
      bandwidth: B/s between a device and its memory.
      peak: dense bfloat16 FLOP/s of a device; float32 on GPUs that have no bfloat16.
      link: B/s that a device sends, over all its links together, to its neighbours in a slice or host.
      network: B/s that a device sends to other hosts, or other slices, when all devices of its host send.
      host_devices: devices of a host.
      source: sources of the figures.
      arrangement: shapes in which it can be had.
      clock: clock of a TPU in Hz; its compiler estimates in cycles. 0 for GPUs, whose compiler does not.
    """

    name: str
    title: str
    platform: str
    memory: int
    bandwidth: float
    peak: float
    link: float
    network: float
    host_devices: int
    source: str
    arrangement: Arrangement
    clock: float = 0.0


@dataclass(frozen=True)
class Place:
    """Devices of one target: a slice of a TPU pod, or hosts with GPUs."""

    target: Target
    shape: Shape

    @property
    def name(self) -> str:
        """Name for the command line: "v5e:8x8"."""
        return f"{self.target.name}:{named(self.shape)}"

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.target.arrangement.devices(self.shape)

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return self.target.arrangement.hosts(self.shape)


def parse_place(text: str) -> Place:
    """Returns the devices that a text names.

    >>> parse_place("v5e:8x8").devices, parse_place("h100:8").devices, parse_place("h100:4x8").devices
    (64, 8, 32)

    Raises JclipError, with the nearest targets or the possible shapes, if there are no such devices.
    """
    name, colon, shape = text.strip().lower().partition(":")
    if name not in TARGETS:
        raise JclipError(f"{shown(repr(name))} is not a known target: {_similar(name)}")
    target = TARGETS[name]
    possible = target.arrangement.possible
    if not colon:
        raise JclipError(f"{name} needs a shape, such as {name}:{named(_smallest_host(target))}: {possible}")
    if re.fullmatch(r"[\dx]+\*\d+|\d+\*[\dx]+", shape):
        raise JclipError(f"{shape} are several slices or groups of hosts; jclip trains on one: choose {possible}")
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})*", shape):
        raise JclipError(f"{shown(repr(shape))} is not a shape of {name}: choose {possible}")
    place = Place(target, tuple(map(int, shape.split("x"))))
    if not target.arrangement.has(place.shape):
        nearest = target.arrangement.with_devices(place.devices)
        hint = f"; with {place.devices:,} devices or more: {name}:{named(nearest)}" if nearest else ""
        raise JclipError(f"{name} has no shape {shape}: choose {possible}{hint}")
    return place


def _similar(name: str) -> str:
    """Returns a suggestion for an unknown target: similar ones, or what Google Cloud's name of a slice is here.

    >>> _similar("v5litepod-16"), _similar("v5p-16")
    ('did you mean v5e:4x4?', 'did you mean v5p:2x2x2?')
    """
    if found := re.fullmatch(r"(v3|v4|v5p|v5litepod|v6e)-(\d{1,5})", name):
        target = TARGETS[found[1].replace("v5litepod", "v5e")]
        cores = 2 // target.arrangement.devices((1,)) if found[1] in _NAMED_BY_CORES else 1  # of a device
        if shape := target.arrangement.with_devices(int(found[2]) // cores):
            return f"did you mean {target.name}:{named(shape)}?"
    return suggestion(name, list(TARGETS))


def _smallest_host(target: Target) -> Shape:
    shape = target.arrangement.with_devices(target.host_devices)
    assert shape is not None
    return shape


_NAMED_BY_CORES = ("v3", "v4", "v5p")  # of which a chip has two; others are named by their chips
_GIB, _TERA, _GIGA = 2**30, 1e12, 1e9
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_DEEP = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_CLOUD = "Google Cloud TPU documentation, page of {}"
_LIMIT = "memory: the limit of libtpu 0.0.42"


def _tpu(
    name: str,
    title: str,
    arrangement: Slices,
    *,
    memory: float,
    bandwidth: float,
    peak: float,
    cycle: int,
    link: float,
    network: float,
    source: str,
) -> Target:
    """Returns a TPU from a chip's figures: GiB of one device, and GB/s, TFLOP/s, GB/s and GB/s of a chip.

    `cycle` is the number of FLOPs that a device's matrix units make in a cycle: two per element and cycle.
    """
    cores = arrangement.devices_per_chip
    return Target(
        name,
        title,
        "tpu",
        int(memory * _GIB),
        bandwidth * _GIGA / cores,
        peak * _TERA / cores,
        link * _GIGA / cores,
        network * _GIGA / cores,
        CHIPS_PER_HOST * cores,
        f"{source}; {_LIMIT}",
        arrangement,
        peak * _TERA / cores / cycle,
    )


def _gpu(name: str, gpu: Gpu, *, peak: float, link: float, network: float, source: str) -> Target:
    """Returns a GPU of a host of eight: TFLOP/s, and GB/s of its links and of its share of the host's network."""
    memory = int(gpu.memory * GPU_SHARE)
    rates = (gpu.bandwidth, peak * _TERA, link * _GIGA, network * _GIGA)
    return Target(name, gpu.name, "cuda", memory, *rates, 8, source, Hosts(gpu))


_MIB, _KIB = 2**20, 2**10
_V100 = Gpu("Tesla V100-SXM2-32GB", (7, 0), 80, 1.53, 34_089_730_048, 0.9e12, 6 * _MIB, 96 * _KIB, 64)
_A100_40 = Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 108, 1.41, 42_331_013_120, 1.555e12, 40 * _MIB, 164 * _KIB, 64)
_A100 = Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 85_100_068_864, 2.039e12, 40 * _MIB, 164 * _KIB, 64)
_H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.83, 84_942_979_072, 3.35e12, 50 * _MIB, 228 * _KIB, 128)
_H200 = Gpu("NVIDIA H200", (9, 0), 132, 1.83, 151_397_597_184, 4.8e12, 50 * _MIB, 228 * _KIB, 128)
_B200 = Gpu("NVIDIA B200", (10, 0), 148, 1.85, 191_514_411_008, 8.0e12, 126 * _MIB, 228 * _KIB, 128)
_SHEET = "NVIDIA data sheets of {}; bytes of memory: OpenXLA's description of the device"

_ALL = (
    _tpu(
        "v3", "TPU v3 (one core)",
        Slices(((2, 2), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)), devices_per_chip=2),
        memory=15.48, bandwidth=900, peak=123, cycle=2 * 2 * 128**2, link=328, network=3.1,
        source=f"{_CLOUD.format('v3')}; links: 4 of 656 Gbit/s, Jouppi et al. 2020; network: not published, as v5e",
    ),
    _tpu(
        "v4", "TPU v4",
        Slices(_DEEP, block=4, largest=(16, 16, 16), chip="megacore"),
        memory=30.75, bandwidth=1228, peak=275, cycle=8 * 2 * 128**2, link=300, network=6.25,
        source=f"{_CLOUD.format('v4')}; network: 25 GB/s a host, \"How to Scale Your Model\"",
    ),
    _tpu(
        "v5e", "TPU v5e",
        Slices(_FLAT),
        memory=15.75, bandwidth=819, peak=197, cycle=4 * 2 * 128**2, link=200, network=3.125,
        source=_CLOUD.format("v5e"),
    ),
    _tpu(
        "v5p", "TPU v5p",
        Slices(_DEEP, block=4, largest=(16, 16, 24)),
        memory=95.74, bandwidth=2765, peak=459, cycle=8 * 2 * 128**2, link=600, network=6.25,
        source=_CLOUD.format("v5p"),
    ),
    _tpu(
        "v6e", "TPU v6e (Trillium)",
        Slices(_FLAT),
        memory=31.25, bandwidth=1638, peak=918, cycle=4 * 2 * 256**2, link=400, network=12.5,
        source=_CLOUD.format("v6e"),
    ),
    _tpu(
        "tpu7x", "TPU7x (Ironwood, one core)",
        Slices(_DEEP, block=4, largest=(16, 16, 36), devices_per_chip=2),
        memory=94.75, bandwidth=7380, peak=2307, cycle=4 * 2 * 256**2, link=600, network=12.5,
        source=_CLOUD.format("TPU7x"),
    ),
    _gpu(
        "v100", _V100, peak=15.7, link=150, network=6.25,
        source=f"{_SHEET.format('V100 and DGX-1')}; peak: float32, as it has no bfloat16",
    ),
    _gpu("a100-40", _A100_40, peak=312, link=300, network=25, source=_SHEET.format("A100 and DGX A100")),
    _gpu("a100", _A100, peak=312, link=300, network=25, source=_SHEET.format("A100 and DGX A100")),
    _gpu("h100", _H100, peak=989.4, link=450, network=50, source=_SHEET.format("H100 and DGX H100")),
    _gpu("h200", _H200, peak=989.4, link=450, network=50, source=_SHEET.format("H200 and DGX H200")),
    _gpu("b200", _B200, peak=2250, link=900, network=50, source=_SHEET.format("HGX B200 and DGX B200")),
)  # fmt: skip
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
"""Accelerators by name."""
