"""Reads the text of optimised HLO, as XLA's compilers for TPU, CUDA and CPU print it.

    >>> module = read_module('''HloModule m, num_partitions=2
    ... ENTRY %main (p: f32[4,8]) -> f32[8] {
    ...   %p = f32[4,8]{1,0:T(8,128)S(1)} parameter(0)
    ...   ROOT %r = f32[8]{0} slice(%p), slice={[0:1], [0:8]}
    ... }''')
    >>> root = module.entry.root
    >>> root.opcode, root.shape.dims, root.operands, root.attributes
    ('slice', (8,), ('p',), {'slice': '{[0:1], [0:8]}'})

Quoted text, such as names and metadata, is never searched for attributes.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

from jclip.errors import JclipError

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r" ([a-z][a-z0-9\-]*)\(")
_OPERAND = re.compile(r"%([\w.\-]+)")
_SHAPE = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?|[()]")
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\](){}]|, ')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_BITS = re.compile(r"\d+")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")


@dataclass(frozen=True)
class Array:
    """Shape of an array.

    Attributes:
      dtype: element type, such as "bf16".
      dims: sizes of the dimensions.
      layout: order of the dimensions in memory, with TPU's tiles and memory space, such as "1,0:T(8,128)S(1)".
    """

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    @cached_property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.dims)

    @cached_property
    def bytes(self) -> int:
        """Size in bytes, without padding."""
        return self._bytes(self.elements)

    @cached_property
    def stored(self) -> int:
        """Size in bytes with the padding of TPU's tiles: T(8,128) pads the last two dimensions in memory."""
        order, _, rest = self.layout.partition(":")
        tile = _TILE.search(rest)
        if tile is None:
            return self.bytes
        tiles = [int(size) for size in tile[1].split(",")]
        minor = [int(axis) for axis in order.split(",")] if order else []
        dims = [self.dims[axis] for axis in reversed(minor)]
        dims = [1] * (len(tiles) - len(dims)) + dims
        split = len(dims) - len(tiles)
        padded = [-(-size // step) * step for size, step in zip(dims[split:], tiles, strict=True)]
        return self._bytes(prod(dims[:split]) * prod(padded))

    @cached_property
    def in_memory(self) -> bool:
        """True if the array is in the device's main memory.

        Space 0 is main memory. On TPU, space 1 is vector memory on the chip, which only tiled arrays use; others are
        flags, scalars and the host's memory. On CUDA, space 1 is main memory that collectives use.
        """
        found = _SPACE.search(self.layout)
        return found is None or found[1] == "0" or (found[1] == "1" and "T(" not in self.layout)

    def _bytes(self, elements: int) -> int:
        bits = 8 if self.dtype == "pred" else int(found[0]) if (found := _BITS.search(self.dtype)) else 0
        return -(-elements * bits // 8)


Shape = Array | tuple["Shape", ...]


def leaves(shape: Shape) -> tuple[Array, ...]:
    """Returns the arrays of a shape, including those in nested tuples."""
    if isinstance(shape, Array):
        return (shape,)
    return tuple(leaf for part in shape for leaf in leaves(part))


@lru_cache(maxsize=1 << 16)
def read_shape(text: str) -> Shape:
    """Returns the shape of a text such as "(f32[2,3]{1,0}, (pred[]))": an `Array`, or a tuple of shapes.

    Raises ValueError if the text is not one shape.
    """
    open_tuples: list[list[Shape]] = [[]]
    for found in _SHAPE.finditer(text):
        if found[0] == "(":
            open_tuples.append([])
        elif found[0] == ")":
            done = tuple(open_tuples.pop())
            open_tuples[-1].append(done)
        else:
            dims = tuple(int(size.strip().removeprefix("<=")) for size in found[2].split(",") if size.strip())
            open_tuples[-1].append(Array(found[1], dims, found[3] or ""))
    ((shape,),) = open_tuples
    return shape


class Instruction:
    """One instruction.

    Attributes:
      name: unique within its computation.
      opcode: such as "fusion".
      text: its arguments and attributes.
    """

    def __init__(self, name: str, opcode: str, shape: str, text: str):
        self.name = name
        self.opcode = opcode
        self.text = text
        self._shape = shape

    @cached_property
    def shape(self) -> Shape:
        """Shape of the result."""
        try:
            return read_shape(self._shape)
        except (ValueError, IndexError):
            raise unreadable(self.name) from None

    @cached_property
    def base(self) -> str:
        """Opcode without the suffix of an asynchronous start: "slice" for "slice-start"."""
        return self.opcode.removesuffix("-start")

    @property
    def array(self) -> Array:
        """Shape of the result, or of the first array of a tuple."""
        return leaves(self.shape)[0]

    @cached_property
    def arguments(self) -> str:
        """Text between the parentheses: names of the operands, or a constant's or parameter's value."""
        return self.text[: self._end]

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands."""
        return tuple(_OPERAND.findall(self.arguments))

    @cached_property
    def attributes(self) -> Mapping[str, str]:
        """Attributes as text, by name."""
        return read_attributes(self.text[self._end + 1 :])

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The compiler's notes (backend_config); empty if there are none, or if they are not JSON."""
        try:
            found = json.loads(self.attributes.get("backend_config", "{}"))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that a fusion, call, conditional or asynchronous start executes."""
        keys = (
            "calls",
            "to_apply",
            "branch_computations",
            "true_computation",
            "false_computation",
            "called_computations",
        )
        return tuple(name for key in keys for name in _OPERAND.findall(self.attributes.get(key, "")))

    @cached_property
    def _end(self) -> int:
        depth = 1
        for found in _PIECE.finditer(self.text):
            depth += (found[0] in "([{") - (found[0] in ")]}")
            if depth == 0:
                return found.start()
        return len(self.text)


class Computation:
    """Instructions by name, in the order of their execution."""

    def __init__(self, name: str, statements: Sequence[str]):
        self.name = name
        self._statements = statements

    @cached_property
    def instructions(self) -> Mapping[str, Instruction]:
        """Instructions by name, in order."""
        return {each.name: each for each, _ in self._read()}

    @cached_property
    def root(self) -> Instruction:
        """Instruction whose result is the computation's."""
        for each, is_root in self._read():
            if is_root:
                return self.instructions[each.name]
        raise unreadable(self.name)

    @cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        """Parameters by number."""
        return {int(each.arguments): each for each in self.instructions.values() if each.opcode == "parameter"}

    @cached_property
    def users(self) -> Mapping[str, list[Instruction]]:
        """Instructions that use each result, by its name."""
        found: dict[str, list[Instruction]] = defaultdict(list)
        for each in self.instructions.values():
            for name in dict.fromkeys(each.operands):
                found[name].append(each)
        return found

    def operand(self, user: Instruction, number: int) -> Instruction:
        """Returns the instruction whose result is an operand.

        Raises JclipError if there is none.
        """
        try:
            return self.instructions[user.operands[number]]
        except (KeyError, IndexError):
            raise unreadable(user.name) from None

    def operands(self, user: Instruction) -> list[Instruction]:
        """Returns the instructions whose results are the operands, each once."""
        names = dict.fromkeys(user.operands)
        if not names.keys() <= self.instructions.keys():
            raise unreadable(user.name)
        return [self.instructions[name] for name in names]

    def operands_in_order(self, user: Instruction) -> list[Instruction]:
        """Returns the instructions whose results are the operands, in order."""
        return [self.operand(user, number) for number in range(len(user.operands))]

    def _read(self) -> Iterator[tuple[Instruction, bool]]:
        for text in self._statements:
            found = _INSTRUCTION.match(text)
            if found is None:
                continue
            opcode = _OPCODE.search(text, found.end())
            if opcode is None:
                raise unreadable(found[2])
            shape = text[found.end() : opcode.start()]
            yield Instruction(found[2], opcode[1], shape, text[opcode.end() :]), found[1] is not None


@dataclass(frozen=True)
class Module:
    """One compiled program.

    Attributes:
      entry: computation with which it starts.
      computations: all of them, by name.
      partitions: number of devices that execute it.
    """

    entry: Computation
    computations: Mapping[str, Computation]
    partitions: int

    def called(self, instruction: Instruction) -> list[Computation]:
        """Returns the computations that an instruction executes."""
        return [self.computation(name) for name in instruction.called]

    def computation(self, name: str) -> Computation:
        """Returns a computation by name.

        Raises JclipError if there is none.
        """
        try:
            return self.computations[name]
        except KeyError:
            raise unreadable(name) from None


def read_module(text: str) -> Module:
    """Returns the program of `compiled.as_text()`. Instructions are read when they are asked for.

    Raises JclipError if the text is not a program in HLO.
    """
    start = text.find("HloModule ")
    found = list(_computations(text))
    entries = [name for name, is_entry, _ in found if is_entry]
    if start < 0 or len(entries) != 1:
        raise unreadable("its beginning, which is not that of one program in HLO")
    header = read_attributes(text[start : text.index("\n", start)])
    computations = {name: Computation(name, statements) for name, _, statements in found}
    if not computations[entries[0]].instructions:
        raise unreadable(entries[0])
    counts = [int(header.get(key, "1")) for key in ("num_partitions", "replica_count")]
    return Module(computations[entries[0]], computations, prod(counts))


def _computations(text: str) -> Iterator[tuple[str, bool, list[str]]]:
    """Yields the name of each computation, True for the entry, and the texts of its instructions."""
    lines = iter(text.split("\n"))
    for line in lines:
        if found := _COMPUTATION.match(line):
            yield found[2], found[1] is not None, list(_statements(lines))


def _statements(lines: Iterator[str]) -> Iterator[str]:
    """Yields the instructions of a computation up to the bracket that ends it.

    An instruction ends with the line that closes all its brackets and quotes. The configuration of a Pallas kernel has
    several lines, and some of them begin with a bracket.
    """
    parts, depth, quoted = list[str](), 0, False
    for line in lines:
        if not parts and line.startswith("}"):
            return
        outside, quote, _ = _QUOTED.sub("", '"' + line if quoted else line).partition('"')
        depth += sum(map(outside.count, "([{")) - sum(map(outside.count, ")]}"))
        quoted = bool(quote)
        parts.append(line)
        if depth <= 0 and not quoted:
            yield "\n".join(parts)
            parts, depth = [], 0
    if parts:
        yield "\n".join(parts)


def read_attributes(text: str) -> dict[str, str]:
    """Returns attributes by name, as text.

    >>> read_attributes('calls=%f, metadata={op_name="a, calls=%g"}, dimensions={0, 1}')
    {'calls': '%f', 'metadata': '{op_name="a, calls=%g"}', 'dimensions': '{0, 1}'}
    """
    found, depth, start = {}, 0, 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in "([{") - (piece[0] in ")]}")
        if piece[0] == ", " and depth == 0:
            name, _, value = text[start : piece.start()].partition("=")
            found[name.strip(", ")] = value
            start = piece.end()
    name, _, value = text[start:].partition("=")
    found[name.strip(", ")] = value.strip()
    return {name: value for name, value in found.items() if value}


def unreadable(where: str) -> JclipError:
    """Returns an error for text in an unknown form; `where` completes "at"."""
    return JclipError(f"the compiler's text cannot be read at {where}: its version of XLA may print it differently")
