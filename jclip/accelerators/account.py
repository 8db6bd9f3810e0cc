"""Counts the work of one device in one step, from the text of its compiled program (`compiled.as_text()`).

XLA's own `cost_analysis` counts the body of a loop only once. Here it is counted once per iteration.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from jclip.accelerators.collectives import Collective, as_scatter, collective_kind, read_collective
from jclip.accelerators.hlo_text import Computation, Instruction, Module, read_module, unreadable
from jclip.accelerators.products import count_products, target_of
from jclip.accelerators.traffic import count_traffic
from jclip.accelerators.trips import trip_count
from jclip.errors import JclipError
from jclip.plain import shown


@dataclass(frozen=True)
class Work:
    """One instruction that a device executes. A fusion or library call is one instruction.

    Attributes:
      name, opcode: of the instruction.
      times: number of executions per step.
      products: FLOPs of its matmuls and convolutions, per execution.
      traffic: bytes that it reads and writes in the device's memory, per execution.
      cycles: clock cycles per execution, as a TPU's compiler estimates them; 0 if it does not, and on other devices.
    """

    name: str
    opcode: str
    times: int
    products: int
    traffic: int
    cycles: int


@dataclass(frozen=True)
class Account:
    """Work of one device in one step.

    Attributes:
      work: instructions that compute or move data.
      collectives: communication with other devices.
      unknown: sentences about work that the text does not describe fully, and that is not counted or counted once.
    """

    work: tuple[Work, ...]
    collectives: tuple[Collective, ...]
    unknown: tuple[str, ...]

    @property
    def products(self) -> int:
        """FLOPs of matmuls and convolutions."""
        return sum(each.products * each.times for each in self.work)

    @property
    def traffic(self) -> int:
        """Bytes read and written in the device's memory."""
        return sum(each.traffic * each.times for each in self.work)

    @property
    def cycles(self) -> int:
        """Clock cycles by the compiler's own estimate; 0 if it makes none."""
        return sum(each.cycles * each.times for each in self.work)

    def by_kind(self) -> dict[str, "Communication"]:
        """Returns the number and bytes of collectives by kind."""
        found: dict[str, Communication] = {}
        for each in self.collectives:
            count, executions, wire = found.get(each.kind, Communication(0, 0, 0))
            found[each.kind] = Communication(count + 1, executions + each.times, wire + each.wire * each.times)
        return found


class Communication(NamedTuple):
    """Collectives of one kind: instructions, their executions per step, and bytes that one device sends in a step."""

    instructions: int
    executions: int
    wire: int


def account(text: str) -> Account:
    """Returns the account of one device and step, from the text of an optimised program in HLO.

    Products inside fusions and library calls are counted too. Traffic inside a fusion is not, because it stays in
    registers or caches. Of a conditional, the branch with the most products is counted.

    Raises JclipError if the text cannot be read.
    """
    try:
        module = read_module(text)
        return _Reader(module).read(module.entry)
    except JclipError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        raise unreadable("a shape or an attribute") from None


class _Reader:
    """Counter of a module's computations, which keeps the account of each."""

    def __init__(self, module: Module):
        self._module = module
        self._read: dict[str, Account] = {}
        self._fusions: dict[str, _Counts] = {}

    def read(self, computation: Computation) -> Account:
        """Returns the account of one execution of a computation."""
        if computation.name not in self._read:
            found = _total(self._of(each, computation) for each in computation.instructions.values())
            self._read[computation.name] = replace(found, collectives=_once(found.collectives))
        return self._read[computation.name]

    def _of(self, instruction: Instruction, computation: Computation) -> Account:
        if instruction.opcode == "while":
            return self._loop(instruction, computation)
        if instruction.base in ("call", "async"):
            return _total(map(self.read, self._module.called(instruction)))
        if instruction.opcode == "conditional":
            branches = map(self.read, self._module.called(instruction))
            return max(branches, key=lambda branch: (branch.products, branch.traffic), default=_NOTHING)
        products, collectives, unknown = self._counts(instruction, computation)
        traffic = count_traffic(instruction, computation, self._module)
        work = Work(instruction.name, instruction.opcode, 1, products, traffic, _cycles(instruction))
        return Account((work,) if products or traffic or work.cycles else (), collectives, unknown)

    def _loop(self, loop: Instruction, computation: Computation) -> Account:
        body = self.read(self._module.computation(loop.attributes.get("body", "").lstrip("%")))
        times = trip_count(loop, computation, self._module)
        if times is None:
            sentence = f"{shown(loop.name)}: the loop's length is not in the text; it is counted once"
            return replace(body, unknown=(*body.unknown, sentence))
        work = (replace(each, times=each.times * times) for each in body.work)
        collectives = (replace(each, times=each.times * times) for each in body.collectives)
        return Account(tuple(work), tuple(collectives), body.unknown)

    def _counts(self, instruction: Instruction, computation: Computation) -> "_Counts":
        """Returns the products and collectives of an instruction, with those inside a fusion."""
        if instruction.base == "fusion":
            fused = [self._fused_counts(each) for each in self._module.called(instruction)]
            return _Counts(
                sum(each.products for each in fused),
                tuple(one for each in fused for one in each.collectives),
                tuple(one for each in fused for one in each.unknown),
            )
        if kind := collective_kind(instruction):
            found, known = read_collective(instruction, computation, kind, self._module.partitions)
            unread = f"{shown(instruction.name)}: the groups are not in a known form; counted over all devices"
            return _Counts(0, (replace(found, chain=_chain(instruction)),), () if known else (unread,))
        products = count_products(instruction, computation)
        if products is None:
            sentence = f"{shown(instruction.name)}: the products of {shown(target_of(instruction))} are not counted"
            return _Counts(0, (), (sentence,))
        return _Counts(products, (), ())

    def _fused_counts(self, computation: Computation) -> "_Counts":
        if computation.name not in self._fusions:
            parts = [self._counts(each, computation) for each in computation.instructions.values()]
            collectives = tuple(one for each in parts for one in each.collectives)
            if computation.name.startswith(_FUSED_SCATTER):
                collectives = tuple(map(as_scatter, collectives))
            unknown = tuple(one for each in parts for one in each.unknown)
            self._fusions[computation.name] = _Counts(sum(each.products for each in parts), collectives, unknown)
        return self._fusions[computation.name]


class _Counts(NamedTuple):
    """Counts of one computation; `unknown` is as in `Account`."""

    products: int
    collectives: tuple[Collective, ...]
    unknown: tuple[str, ...]


_NOTHING = Account((), (), ())
_FUSED_SCATTER = "all-reduce-scatter"
"""Name of the fusions in which TPU's compiler writes a reduce-scatter as an all-reduce and a slice of it."""
_CHAIN = re.compile(r'\bchain_id="(\d+)"')


def _chain(instruction: Instruction) -> str:
    """Returns a key that the parts of one collective share if TPU's compiler divides it among fusions; "" if not."""
    found = _CHAIN.search(instruction.attributes.get("frontend_attributes", ""))
    return f"{instruction.opcode} {instruction.attributes.get('channel_id')} {found[1]}" if found else ""


def _once(collectives: Iterable[Collective]) -> tuple[Collective, ...]:
    """Returns the collectives, with one for all parts of a chain: the part that is executed the fewest times.

    A gather may begin before a loop and end after it. Its parts in the loop are executed as often as the loop's body,
    and together move the array once.
    """
    found: dict[object, Collective] = {}
    for number, each in enumerate(collectives):
        key = each.chain or number
        if key not in found or each.times < found[key].times:
            found[key] = each
    return tuple(found.values())


def _cycles(instruction: Instruction) -> int:
    if instruction.opcode != "fusion":
        return 0
    window = instruction.config.get("window_config")
    return int(window.get("estimated_cycles", 0)) if isinstance(window, dict) else 0


def _total(parts: Iterable[Account]) -> Account:
    parts = list(parts)
    return Account(
        tuple(one for each in parts for one in each.work),
        tuple(one for each in parts for one in each.collectives),
        tuple(dict.fromkeys(one for each in parts for one in each.unknown)),
    )
