"""Steps that accelerators' compilers have compiled, and estimates for other batches and numbers of devices from them.

docs/compiled.json keeps one record for each compiled step; docs/devices.md and docs/scaling.md are drawn from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from docs.records import Records
from jclip.accelerators.account import account
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.roofline import estimate, sending_rate
from jclip.accelerators.targets import TARGETS, Place, Target, parse_place
from jclip.configs.loading import load_config
from jclip.models.compute import Remat
from jclip.parallel.mesh import MeshShape
from jclip.train.configuration import Run
from jclip.train.planning.on_target import Assembled, assemble_stage
from jclip.train.planning.remat import STEP_SHARE

MESHES = {"data": MeshShape(), "fsdp": MeshShape(data=1, fsdp=-1)}
"""Meshes by name: parameters are replicated, or split over all devices."""
SHARED = {"a100": ("a100-40",), "h100": ("h200",)}
"""Targets that share the program of another one, by its name."""


@dataclass(frozen=True, order=True)
class Key:
    """Step of one stage.

    Attributes:
      recipe, stage: names of the recipe and of its stage.
      place: devices, such as "v5e:2x4".
      mesh: a name of MESHES.
      remat: rematerialisation.
      pairs: pairs per device and step.
    """

    recipe: str
    stage: str
    place: str
    mesh: str
    remat: Remat
    pairs: int


class Times(NamedTuple):
    """Estimated seconds of a step without communication."""

    products: float
    traffic: float
    cycles: float

    @property
    def computing(self) -> float:
        """Seconds of both: by the compiler's own count if it makes one, and by the roofline if not."""
        return self.cycles or self.products + self.traffic


@dataclass(frozen=True)
class Step:
    """Compiled step; bytes, FLOPs and seconds are those of one device.

    Attributes:
      needed: bytes that the step needs, state included.
      state: bytes of parameters and optimizer slots that it takes.
      whole: bytes of all parameters and optimizer slots, each counted once. Frozen ones are in the host's memory in
        float32; a step takes only what it reads, partly in bfloat16.
      gradients: bytes of all gradients.
      flops: FLOPs of its products; 0 if the compiler refuses it because it does not fit.
      times: estimated seconds of products, of memory traffic, and of both by the compiler's own count of cycles (0
        if it makes none), for each target that shares the program.
      sent: bytes that it sends to other devices, by kind of collective.
      seconds: duration of the compilation.
    """

    needed: int
    state: int
    whole: int
    gradients: int
    flops: int
    times: dict[str, Times]
    sent: dict[str, int]
    seconds: float


Steps = dict[Key, Step]


def _step(times: dict[str, Sequence[float]], **fields: Any) -> Step:
    """Returns a step from its fields, as they are in JSON."""
    return Step(times={name: Times(*seconds) for name, seconds in times.items()}, **fields)


RECORDS = Records(Path(__file__).with_suffix(".json"), Key, _step)


def stage_run(key: Key) -> Run:
    """Returns a run of one stage of a recipe alone, as a step is compiled."""
    run = load_config(key.recipe)
    stage = next(stage for stage in run.stages if stage.name == key.stage)
    batch = key.pairs * parse_place(key.place).devices
    stages = (replace(stage, batch_size=batch),)
    return replace(run, stages=stages, mesh=MESHES[key.mesh], remat=key.remat)


def compile_step(process: CompilerProcess, key: Key) -> Step:
    """Compiles a step; raises JclipError as `CompilerProcess.call` does."""
    found: Assembled = process.call(assemble_stage, stage_run(key), 0)
    plan, compiled, place = found.plan, found.compiled, process.place
    step = Step(
        needed=compiled.needed,
        state=plan.device_state_bytes,
        whole=plan.state_bytes,
        gradients=4 * plan.trainable,
        flops=0,
        times={},
        sent={},
        seconds=round(compiled.seconds, 1),
    )
    if not compiled.text:
        return step
    counted = account(compiled.text)
    times: dict[str, Times] = {}
    for name in (place.target.name, *SHARED.get(place.target.name, ())):
        spent = estimate(counted, Place(TARGETS[name], place.shape))
        cycles = spent.compiler - spent.links if spent.compiler else 0.0
        times[name] = Times(spent.products, spent.traffic, cycles)
    sent = {kind: each.wire for kind, each in counted.by_kind().items()}
    return replace(step, flops=counted.products, times=times, sent=sent)


def program_of(target: str) -> str:
    """Returns the target whose compiler's program a target uses.

    >>> program_of("a100-40"), program_of("v5e")
    ('a100', 'v5e')
    """
    return next((name for name, others in SHARED.items() if target in others), target)


_ENDLESS = 1 << 20  # pairs


@dataclass(frozen=True)
class Line:
    """Quantity that is known for some batches, and linear in the batch between them.

    Beyond them it continues with the slope from the first to the last: neighbours can be only a few pairs apart.

    Attributes:
      points: (pairs per device, value), ascending.
    """

    points: tuple[tuple[int, float], ...]

    def at(self, pairs: float) -> float:
        """Returns the value for a number of pairs per device.

        >>> Line(((8, 10.0), (16, 18.0))).at(32)
        34.0
        """
        if len(self.points) == 1:
            return self.points[0][1]
        (x0, y0), (x1, y1) = next(
            (ends for ends in pairwise(self.points) if ends[0][0] <= pairs <= ends[1][0]),
            (self.points[0], self.points[-1]),
        )
        return y0 + (y1 - y0) * (pairs - x0) / (x1 - x0)

    def largest_within(self, value: float) -> int:
        """Returns the largest number of pairs per device whose value is at most `value`; 0 if there is none.

        Returns at least a million for a line that does not rise.

        >>> Line(((8, 10.0), (16, 18.0))).largest_within(34.9)
        32
        """
        pairs = 0
        while pairs < _ENDLESS and (further := pairs + _power_below(self, pairs, value)) > pairs:
            pairs = further
        return pairs


def _line_through(points: Iterable[tuple[int, float]]) -> Line:
    return Line(tuple((pairs, float(value)) for pairs, value in points))


def _power_below(line: Line, pairs: int, value: float) -> int:
    """Returns the largest power of two that can be added to `pairs`; 0 if none can."""
    step = 1 << 16
    while step and line.at(pairs + step) > value:
        step >>= 1
    return step


@dataclass(frozen=True)
class Series:
    """Steps of one stage that differ only in the batch, compiled for `devices` devices.

    Attributes:
      target: target whose rates are used.
      steps: (pairs per device, step), ascending; at least one.
      mesh: a name of MESHES.
    """

    target: Target
    devices: int
    steps: tuple[tuple[int, Step], ...]
    mesh: str = "data"

    @property
    def first(self) -> Step:
        """The step with the smallest batch."""
        return self.steps[0][1]

    def state(self, devices: int) -> float:
        """Returns the bytes of parameters and optimizer slots that a step takes on one of `devices` devices.

        With "fsdp", norms and biases are replicated, and each device has an equal part of the rest.
        """
        if self.mesh == "data":
            return self.first.state
        taken = min(self.first.whole, self.devices * self.first.state)
        replicated = (self.first.state - taken / self.devices) * self.devices / (self.devices - 1)
        return replicated + (taken - replicated) / devices

    def needed(self, pairs: float, devices: int) -> float:
        """Returns the bytes that a step needs on one of `devices` devices."""
        return self._needed(devices).at(pairs)

    @property
    def room(self) -> float:
        """Bytes that a step may need with `remat="auto"`, which leaves a part of the memory to the rest of a run."""
        return STEP_SHARE * self.target.memory

    def fits(self, pairs: float, devices: int) -> bool:
        """Returns True if a step needs no more than `room` on one of `devices` devices."""
        return self.needed(pairs, devices) <= self.room

    def largest(self, devices: int) -> int:
        """Returns the largest number of pairs per device that fits."""
        return self._needed(devices).largest_within(self.room)

    def _needed(self, devices: int) -> Line:
        """Returns the bytes of a step on one of `devices` devices. With "fsdp" the gradients are split as well."""
        more = self.state(devices) - self.first.state
        if self.mesh == "fsdp":
            more += self.first.gradients / devices - self.first.gradients / self.devices
        return _line_through((pairs, step.needed + more) for pairs, step in self.steps)

    def flops(self, pairs: float) -> float:
        """Returns the FLOPs of a step on one device."""
        return _line_through((known, step.flops) for known, step in self._accounted).at(pairs)

    def times(self, pairs: float) -> Times:
        """Returns the estimated seconds without communication. No part is below zero, as the end of a line can be."""
        times = [(known, step.times[self.target.name]) for known, step in self._accounted]
        lines = (_line_through((known, each[part]) for known, each in times) for part in range(3))
        return Times(*(max(line.at(pairs), 0.0) for line in lines))

    def computing(self, pairs: float) -> float:
        """Returns the estimated seconds without communication, by the compiler's own count if there is one."""
        return self.times(pairs).computing

    @property
    def sent(self) -> dict[str, Line]:
        """Bytes that a device sends, by kind of collective."""
        kinds = dict.fromkeys(kind for _, step in self._accounted for kind in step.sent)
        steps = self._accounted
        return {kind: _line_through((pairs, step.sent.get(kind, 0)) for pairs, step in steps) for kind in kinds}

    def links(self, pairs: float, devices: int) -> float:
        """Returns the estimated seconds of communication.

        What a device sends has two parts. Parameters and gradients do not depend on the batch, and grow with the number
        of devices n as (n - 1) / n. Features are sent for each pair of another device, and grow as n - 1.
        """
        total = 0.0
        for kind, line in self.sent.items():
            fixed = max(line.at(0), 0.0)
            of_pairs = max(line.at(pairs) - fixed, 0.0)
            others = (devices - 1) / max(self.devices - 1, 1)
            total += (fixed * others * self.devices / devices + of_pairs * others) / self.rate(kind, devices)
        return total

    def seconds(self, pairs: float, devices: int) -> float:
        """Returns the estimated seconds of a step."""
        return self.computing(pairs) + self.links(pairs, devices)

    def with_origin(self, other: "Series | None") -> "Series":
        """Returns these steps and one with no pairs, where the line through another series' steps begins.

        Parameters, gradients and the optimizer need as much memory whatever is recomputed, and on another target of the
        same platform. They take the time of their memory traffic: half as long with twice the bandwidth.
        """
        if other is None or not other.accounted or 0 in dict(self.steps):
            return self
        slower = other.target.bandwidth / self.target.bandwidth
        origin = replace(
            self.first,
            needed=int(other.needed(0, self.devices)),
            flops=max(int(other.flops(0)), 1),
            times={self.target.name: Times(*(max(part, 0.0) * slower for part in other.times(0)))},
            sent={kind: int(max(line.at(0), 0.0)) for kind, line in other.sent.items()},
        )
        return replace(self, steps=((0, origin), *self.steps))

    @property
    def accounted(self) -> bool:
        """True if two steps have been compiled whose work is known: times can then be estimated for other batches."""
        return len(self._accounted) > 1

    @property
    def _accounted(self) -> Sequence[tuple[int, Step]]:
        return [(pairs, step) for pairs, step in self.steps if step.flops]

    def rate(self, kind: str, devices: int) -> float:
        """Returns the B/s at which a device sends in a kind of collective of all devices."""
        each_host = self.target.host_devices
        return sending_rate(self.target, kind, several_hosts=devices > each_host, together=each_host)


def series(
    steps: Mapping[Key, Step], recipe: str, stage: str, target: str, mesh: str, remat: Remat, devices: int = 8
) -> Series | None:
    """Returns the compiled steps of a stage for a target; None if there are none."""
    program = program_of(target)
    found = [
        (key.pairs, step)
        for key, step in sorted(steps.items())
        if (key.recipe, key.stage, key.mesh, key.remat) == (recipe, stage, mesh, remat)
        and (place := parse_place(key.place)).target.name == program
        and place.devices == devices
    ]
    return Series(TARGETS[target], devices, tuple(found), mesh) if found else None
