"""Collectives of optimised HLO: their kinds, groups of devices, and bytes on the wire."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from jclip.accelerators.hlo_text import Computation, Instruction, leaves

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip

_RINGS = frozenset({"all-reduce", "all-gather", "reduce-scatter", "collective-broadcast"})

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of KINDS.
      times: number of executions per step.
      payload: bytes of the whole array on one device, each time: what is reduced, gathered or sent.
      wire: bytes that one device sends each time, as a ring does: 2 (n - 1) / n of the payload for an all-reduce over n
        devices, (n - 1) / n for a gather, scatter or all-to-all, and all of it for a permute.
      groups: numbers of the devices that communicate with each other; for a permute, pairs of source and target.
    """

    kind: str
    times: int
    payload: int
    wire: int
    groups: Groups

    @property
    def devices(self) -> int:
        """Number of devices of the largest group."""
        return max(map(len, self.groups), default=1)

    @property
    def is_ring(self) -> bool:
        """True if each device sends to one neighbour only, all the time."""
        return self.kind in _RINGS

    def spans(self, linked: int) -> bool:
        """Returns True if a group has devices of several hosts, each of which has `linked` devices in sequence."""
        return any(len(_hosts(group, linked)) > 1 for group in self.groups)

    def fewest_together(self, linked: int) -> int:
        """Returns the smallest number of devices that a group has in one host, see `spans`."""
        return min((min(_hosts(group, linked).values()) for group in self.groups), default=1)


def _hosts(group: Sequence[int], linked: int) -> Counter[int]:
    return Counter(device // linked for device in group)


def kind_of(instruction: Instruction) -> str | None:
    """Returns the kind of collective that an instruction starts, or None if it starts none."""
    return instruction.base if instruction.base in KINDS else None


def read_collective(
    instruction: Instruction, computation: Computation, kind: str, partitions: int
) -> tuple[Collective, bool]:
    """Returns an instruction's collective, executed once, and True if its groups could be read.

    Groups that cannot be read are taken as one group of all `partitions` devices.
    """
    everyone = (tuple(range(partitions)),)
    text = instruction.attributes.get("source_target_pairs") or instruction.attributes.get("replica_groups", "{}")
    groups = read_groups(text)
    known = groups is not None
    groups = groups or everyone
    if kind == "collective-permute":
        groups = tuple(pair for pair in groups if len(set(pair)) > 1)
    payload = _payload(instruction, computation, kind)
    devices = max(map(len, groups), default=1)
    if kind == "all-reduce":
        wire = 2 * payload * (devices - 1) // devices
    elif kind in ("collective-permute", "collective-broadcast"):
        wire = payload if devices > 1 else 0
    else:
        wire = payload * (devices - 1) // devices
    return Collective(kind, 1, payload, wire, groups), known


def as_scatter(reduced: Collective) -> Collective:
    """Returns the reduce-scatter of which an all-reduce, whose result is cut at once, is the written form."""
    if reduced.kind != "all-reduce":
        return reduced
    return replace(reduced, kind="reduce-scatter", wire=reduced.payload * (reduced.devices - 1) // reduced.devices)


def _payload(instruction: Instruction, computation: Computation, kind: str) -> int:
    given = sum(leaf.bytes for each in computation.operands(instruction) for leaf in leaves(each.shape))
    if kind != "all-gather":
        return given
    # The result is the whole; an asynchronous start's is a tuple of the operands and the result.
    return sum(leaf.bytes for leaf in leaves(instruction.shape)) - given * instruction.opcode.endswith("-start")


_LISTED = re.compile(r"\{([\d,\s]*)\}")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?$")
_MESH = re.compile(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}$")
_AXIS = re.compile(r"'((?:[^'\\]|\\.)*)'(?::\((\d+)\)(\d+))?(?:=(\d+))?")


def read_groups(text: str) -> Groups | None:
    """Returns groups of devices in any of the forms that XLA prints; () for an empty list; None if it is another form.

    >>> read_groups("{{0,2},{1,3}}"), read_groups("[2,2]<=[4]"), read_groups("[2,2]<=[2,2]T(1,0)")
    (((0, 2), (1, 3)), ((0, 1), (2, 3)), ((0, 2), (1, 3)))
    >>> read_groups("mesh['a'=2,'b'=2] {'a'}"), read_groups("mesh['a'=4] {'a':(2)2}"), read_groups("{}")
    (((0, 2), (1, 3)), ((0, 1), (2, 3)), ())
    """
    if text.startswith("{"):
        found = (_numbers(group) for group in _LISTED.findall(text))
        return tuple(group for group in found if group)
    if iota := _IOTA.match(text):
        count, size = _numbers(iota[1])[0], prod(_numbers(iota[1])[1:])
        dims = _numbers(iota[2])
        order = _numbers(iota[3]) if iota[3] else tuple(range(len(dims)))
        devices = _transposed(dims, order)
        return tuple(tuple(devices[at : at + size]) for at in range(0, count * size, size))
    return _mesh_groups(text)


def _mesh_groups(text: str) -> Groups | None:
    """Returns the groups of devices that differ only in their places along some axes of a mesh, or parts of axes."""
    found = _MESH.match(text)
    if found is None:
        return None
    sizes = {name: int(size) for name, _, _, size in _AXIS.findall(found[1])}
    dims: list[int] = []
    grouped: dict[str, list[tuple[int, int]]] = {name: [] for name in sizes}
    wanted = [
        (name, int(before or 1), int(part or sizes.get(name, 0))) for name, before, part, _ in _AXIS.findall(found[2])
    ]
    if not sizes or any(
        name not in sizes or part == 0 or sizes[name] % (before * part) for name, before, part in wanted
    ):
        return None
    for name, before, part in wanted:
        grouped[name].append((before, part))
    places: dict[tuple[str, int], int] = {}
    for name, size in sizes.items():
        done = 1
        for before, part in sorted(grouped[name]):
            if before < done or before % done:
                return None
            places[name, before] = len(dims) + 1
            dims += [before // done, part]
            done = before * part
        dims.append(size // done)
    last = [places[name, before] for name, before, _ in wanted]
    order = [axis for axis in range(len(dims)) if axis not in last] + last
    devices = _transposed(dims, order)
    size = prod(dims[axis] for axis in last)
    return tuple(tuple(devices[at : at + size]) for at in range(0, len(devices), size))


def _transposed(dims: Sequence[int], order: Sequence[int]) -> list[int]:
    """Returns the numbers 0, 1, 2, … of an array of shape `dims`, read in the order of its transposed dimensions."""
    strides = [prod(dims[axis + 1 :]) for axis in range(len(dims))]
    places = product(*(range(dims[axis]) for axis in order))
    return [sum(place * strides[axis] for place, axis in zip(each, order, strict=True)) for each in places]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())
