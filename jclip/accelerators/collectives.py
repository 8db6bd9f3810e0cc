"""Collectives of optimised HLO: their kinds, groups of devices, and bytes on the wire."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jclip.accelerators.groups import Groups, read_groups
from jclip.accelerators.hlo_text import Array, Computation, Instruction, leaves

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip

RINGS = frozenset({"all-reduce", "all-gather", "reduce-scatter", "collective-broadcast"})
"""Kinds in which each device sends to the same neighbour all the time."""


@dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of KINDS.
      times: number of executions per step.
      payload: bytes of the whole arrays that one device reduces, gathers or sends, per execution.
      wire: bytes that one device sends per execution, in a ring: 2 (n - 1) / n of the payload for an all-reduce over n
        devices, (n - 1) / n for a gather, scatter or all-to-all, and all of it for a permute.
      groups: numbers of the devices that communicate with each other; for a permute, pairs of source and target.
      arrays: shapes of the arrays that make up the payload.
      chain: key of a collective that is executed in parts; "" for one instruction.
    """

    kind: str
    times: int
    payload: int
    wire: int
    groups: Groups
    arrays: tuple[Array, ...] = ()
    chain: str = ""

    @property
    def devices(self) -> int:
        """Number of devices of the largest group."""
        return max(map(len, self.groups), default=1)

    def spans(self, host_devices: int) -> bool:
        """Returns True if a group has devices of several hosts, whose devices have successive numbers."""
        return any(len(_hosts(group, host_devices)) > 1 for group in self.groups)

    def fewest_together(self, host_devices: int) -> int:
        """Returns the smallest number of devices that a group has in one host, see `spans`."""
        return min((min(_hosts(group, host_devices).values()) for group in self.groups), default=1)


def _hosts(group: Sequence[int], host_devices: int) -> Counter[int]:
    return Counter(device // host_devices for device in group)


def collective_kind(instruction: Instruction) -> str | None:
    """Returns the kind of collective that an instruction starts, or None if it starts none."""
    return instruction.base if instruction.base in KINDS else None


def read_collective(
    instruction: Instruction, computation: Computation, kind: str, partitions: int
) -> tuple[Collective, bool]:
    """Returns an instruction's collective, executed once, and True if its groups could be read.

    Groups that cannot be read are taken as one group of all `partitions` devices.
    """
    everyone = (tuple(range(partitions)),)
    given = instruction.attributes
    text = given.get("source_target_pairs") or given.get("replica_groups", "{}")
    groups = read_groups(f"{text}, device_ids={given['device_ids']}" if "device_ids" in given else text)
    known = groups is not None
    groups = groups or everyone
    if kind == "collective-permute":
        groups = tuple(pair for pair in groups if len(set(pair)) > 1)
    arrays = _exchanged(instruction, computation, kind)
    payload = sum(array.bytes for array in arrays)
    devices = max(map(len, groups), default=1)
    if kind == "all-reduce":
        wire = 2 * payload * (devices - 1) // devices
    elif kind in ("collective-permute", "collective-broadcast"):
        wire = payload if devices > 1 else 0
    else:
        wire = payload * (devices - 1) // devices
    return Collective(kind, 1, payload, wire, groups, arrays), known


def as_scatter(reduced: Collective) -> Collective:
    """Returns an all-reduce of whose result only a slice is kept as the reduce-scatter that it is."""
    if reduced.kind != "all-reduce":
        return reduced
    return replace(reduced, kind="reduce-scatter", wire=reduced.payload * (reduced.devices - 1) // reduced.devices)


def _exchanged(instruction: Instruction, computation: Computation, kind: str) -> tuple[Array, ...]:
    given = tuple(leaf for each in computation.operands(instruction) for leaf in leaves(each.shape))
    if kind != "all-gather":
        return given
    # The result is the whole; an asynchronous start's is a tuple of the operands and the result.
    whole = leaves(instruction.shape)
    return whole[len(given) :] if instruction.opcode.endswith("-start") else whole
