"""Accelerators for which jclip can compile, with their published figures.

Figures are those of one jax device. A device is a chip, except on TPU v3 and TPU7x, where it is one of a chip's two
cores and has half of the chip's figures. On v4 and v5p both cores of a chip are one device ("megacore").
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax

from jclip.accelerators.gpu_hosts import AMPERE, BLACKWELL, HOPPER, VOLTA, Architecture, Gpu, GpuHosts
from jclip.accelerators.shapes import Shape, named
from jclip.accelerators.tpu_slices import CHIPS_PER_HOST, TpuSlices
from jclip.errors import JclipError
from jclip.names import suggestion
from jclip.plain import shown

GPU_SHARE = 0.92
"""Share of a GPU's memory that programs may use with XLA_CLIENT_MEM_FRACTION=0.92, as `jclip train` sets it.

jax's default is 0.75. The rest is left to the CUDA context and to NCCL's buffers.
"""


class Arrangement(Protocol):
    """Interface of a kind of accelerator: the possible shapes of its devices, and its compiler.

    Attributes:
      modules: modules that the compiler needs, see `jclip.extras`.
      flags: flags of XLA without which the compiler does not work without a device.
    """

    modules: ClassVar[tuple[str, ...]]
    flags: ClassVar[tuple[str, ...]]

    @property
    def possible(self) -> str:
        """Possible shapes, as text."""

    def has(self, shape: Shape) -> bool:
        """Returns True if this shape is possible."""

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
      memory: bytes of a device that a program may use: the limit that a TPU's compiler enforces, or GPU_SHARE of a
        GPU's memory.
      bandwidth: B/s between a device and its memory.
      peak: dense bfloat16 FLOP/s of a device; float32 on GPUs that have no bfloat16.
      link: B/s that a device sends, over all its links together, to its neighbours in a slice or host.
      network: B/s that a device sends to other hosts or slices while all devices of its host send. Estimates use it for
        GPUs only, because jclip trains on one slice of TPUs, whose links reach all its hosts.
      host_devices: devices of a host.
      source: sources of the figures.
      arrangement: possible shapes of its devices, and its compiler.
      clock: Hz of a TPU, whose compiler estimates in cycles; 0 for GPUs, whose compiler does not.
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
_MIB = 2**20
_GPUS_PER_HOST = 8


def _tpu(
    name: str,
    title: str,
    arrangement: TpuSlices,
    *,
    memory: float,
    bandwidth: float,
    peak: float,
    units: int,
    side: int,
    link: float,
    network: float,
    notes: str = "",
) -> Target:
    """Returns a TPU.

    Args:
      memory: GiB of a device.
      bandwidth, link, network: GB/s of a chip.
      peak: TFLOP/s of a chip.
      units, side: number of matrix units of a device, and side of their arrays. A unit makes two FLOPs per element of
        its array in a cycle, from which the clock follows.
      notes: more about the sources.
    """
    cores = arrangement.devices_per_chip
    return Target(
        name=name,
        title=title,
        platform="tpu",
        memory=int(memory * _GIB),
        bandwidth=bandwidth * _GIGA / cores,
        peak=peak * _TERA / cores,
        link=link * _GIGA / cores,
        network=network * _GIGA / cores,
        host_devices=CHIPS_PER_HOST * cores,
        source=_joined(f"Google Cloud TPU documentation, page of {name}", notes, "memory: the limit of libtpu 0.0.42"),
        arrangement=arrangement,
        clock=peak * _TERA / cores / (2 * units * side**2),
    )


def _gpu(
    name: str,
    title: str,
    architecture: Architecture,
    *,
    multiprocessors: int,
    clock: float,
    memory: int,
    bandwidth: float,
    cache: int,
    peak: float,
    link: float,
    network: float,
    sheets: str,
    notes: str = "",
) -> Target:
    """Returns a GPU of a host of eight.

    Args:
      multiprocessors, clock, memory: as in `Gpu`.
      bandwidth, link, network: GB/s.
      cache: MiB.
      peak: TFLOP/s.
      sheets: products whose data sheets have the figures.
      notes: more about the sources.
    """
    gpu = Gpu(title, architecture, multiprocessors, clock, memory, bandwidth * _GIGA, cache * _MIB)
    return Target(
        name=name,
        title=title,
        platform="cuda",
        memory=int(memory * GPU_SHARE),
        bandwidth=gpu.bandwidth,
        peak=peak * _TERA,
        link=link * _GIGA,
        network=network * _GIGA,
        host_devices=_GPUS_PER_HOST,
        source=_joined(f"NVIDIA data sheets of {sheets}", notes, "memory: OpenXLA's description of the device"),
        arrangement=GpuHosts(gpu, _GPUS_PER_HOST),
    )


def _joined(*words: str) -> str:
    return "; ".join(filter(None, words))


_ALL = (
    _tpu(
        "v3", "TPU v3 (one core)",
        TpuSlices(((2, 2), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)), devices_per_chip=2),
        memory=15.48, bandwidth=900, peak=123, units=2, side=128, link=328, network=3.1,
        notes="links: 4 of 656 Gbit/s, Jouppi et al. 2020; network: not published, as v5e",
    ),
    _tpu(
        "v4", "TPU v4", TpuSlices(_DEEP, block=4, largest=(16, 16, 16), chip="megacore"),
        memory=30.75, bandwidth=1228, peak=275, units=8, side=128, link=300, network=6.25,
        notes='network: 25 GB/s a host, "How to Scale Your Model"',
    ),
    _tpu(
        "v5e", "TPU v5e", TpuSlices(_FLAT),
        memory=15.75, bandwidth=819, peak=197, units=4, side=128, link=200, network=3.125,
    ),
    _tpu(
        "v5p", "TPU v5p", TpuSlices(_DEEP, block=4, largest=(16, 16, 24)),
        memory=95.74, bandwidth=2765, peak=459, units=8, side=128, link=600, network=6.25,
    ),
    _tpu(
        "v6e", "TPU v6e (Trillium)", TpuSlices(_FLAT),
        memory=31.25, bandwidth=1638, peak=918, units=4, side=256, link=400, network=12.5,
    ),
    _tpu(
        "tpu7x", "TPU7x (Ironwood, one core)", TpuSlices(_DEEP, block=4, largest=(16, 16, 36), devices_per_chip=2),
        memory=94.75, bandwidth=7380, peak=2307, units=4, side=256, link=600, network=12.5,
    ),
    _gpu(
        "v100", "Tesla V100-SXM2-32GB", VOLTA,
        multiprocessors=80, clock=1.53, memory=34_089_730_048, bandwidth=900, cache=6,
        peak=15.7, link=150, network=6.25,
        sheets="V100 and DGX-1", notes="peak: float32, as it has no bfloat16",
    ),
    _gpu(
        "a100-40", "NVIDIA A100-SXM4-40GB", AMPERE,
        multiprocessors=108, clock=1.41, memory=42_331_013_120, bandwidth=1555, cache=40,
        peak=312, link=300, network=25, sheets="A100 and DGX A100",
    ),
    _gpu(
        "a100", "NVIDIA A100-SXM4-80GB", AMPERE,
        multiprocessors=108, clock=1.41, memory=85_100_068_864, bandwidth=2039, cache=40,
        peak=312, link=300, network=25, sheets="A100 and DGX A100",
    ),
    _gpu(
        "h100", "NVIDIA H100 80GB HBM3", HOPPER,
        multiprocessors=132, clock=1.83, memory=84_942_979_072, bandwidth=3350, cache=50,
        peak=989.4, link=450, network=50, sheets="H100 and DGX H100",
    ),
    _gpu(
        "h200", "NVIDIA H200", HOPPER,
        multiprocessors=132, clock=1.83, memory=151_397_597_184, bandwidth=4800, cache=50,
        peak=989.4, link=450, network=50, sheets="H200 and DGX H200",
    ),
    _gpu(
        "b200", "NVIDIA B200", BLACKWELL,
        multiprocessors=148, clock=1.85, memory=191_514_411_008, bandwidth=8000, cache=126,
        peak=2250, link=900, network=50, sheets="HGX B200 and DGX B200",
    ),
)  # fmt: skip
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
"""Accelerators by name."""
