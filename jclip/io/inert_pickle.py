"""Reads pickles as data: builds containers and scalars, and never imports or calls anything.

A `pickle.Unpickler` with a strict `find_class` is not enough: a file could still set attributes, hash tuples nested a
million deep (which overflows the C stack), or reserve gigabytes with one opcode. Here `pickletools` decodes the
opcodes, and only those that plain data needs are executed.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

LIMIT = 64 << 20
"""Maximum number of bytes of a pickle. A checkpoint's has kilobytes, because the values are stored outside it."""
_STEPS = 5_000_000  # opcodes plus copied elements
_SCALARS = (str, int, float, bytes, bool, type(None))


@dataclass(frozen=True)
class Callee:
    """Replacement of a class or function that a pickle may call; `make` receives the pickle's arguments."""

    make: Callable[..., Any]


@dataclass
class InertObject:
    """Replacement of an object: keeps only the state that its class would have received."""

    state: Any = None


def load_inert(stream: BinaryIO, find: Callable[[str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Returns the object that a pickle describes, and leaves the stream at the pickle's end.

    Raises ValueError, LookupError, TypeError or OverflowError if it is damaged, or does more than hold data.

    Args:
      stream: the pickle; must refuse reads that do not fit into memory.
      find: returns the replacement of a dotted name: a `Callee` if it may be called, otherwise any inert value. Raises
        for names that are not allowed.
      persistent: returns the replacement of a persistent id.
    """
    machine, begin = _Machine(find, persistent), stream.tell()
    for opcode, argument, position in pickletools.genops(stream):
        machine.spend(1)
        if (position or 0) - begin > LIMIT:
            raise ValueError(f"it is a pickle of more than {LIMIT >> 20} MiB")
        if opcode.name == "STOP":
            break
        operation = _OPERATIONS.get(opcode.name)
        if operation is None:
            raise ValueError(f"it uses {opcode.name}, which plain data does not need")
        operation(machine, argument)
    return machine.pop()


class _Machine:
    def __init__(self, find: Callable[[str], Any], persistent: Callable[[Any], Any]):
        self._find, self._persistent = find, persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks below the marks
        self._memo: dict[int, Any] = {}
        self._left = _STEPS

    def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise ValueError("it is a pickle of too many steps")

    def pop(self) -> Any:
        return self._stack.pop()

    def push(self, value: Any) -> None:
        # torch's magic number has 77 bits, a generator's state 128; printing a huge number takes forever.
        if isinstance(value, int) and value.bit_length() > 128:
            raise ValueError("it holds a number of more than 128 bits")
        self._stack.append(value)

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def wrap(self, size: int) -> None:
        self._stack.append(tuple([self.pop() for _ in range(size)][::-1]))

    def get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def name(self, dotted: str) -> None:
        self._stack.append(self._find(dotted))

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("it names something that is not a string")
        self.name(f"{module}.{name}")

    def persist(self, key: Any) -> None:
        self._stack.append(self._persistent(key))

    def call(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Callee) or type(arguments) is not tuple:
            raise ValueError("it calls something that is not a class")
        self.spend(sum(len(each) for each in arguments if isinstance(each, (list, tuple, dict, set, str, bytes))))
        self._stack.append(target.make(*arguments))

    def build(self) -> None:
        state, target = self.pop(), self._stack[-1]
        if isinstance(target, InertObject):
            target.state = state
        elif not isinstance(target, dict):  # the attributes of an OrderedDict are ignored
            raise ValueError("it sets the state of an object without one")

    def extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("it appends to something that is not a list")
        self._stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not dict:
            raise ValueError("it sets an item of something that is not a dict")
        self._stack[-1].update(_pairs(items))

    def add(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not set:
            raise ValueError("it adds to something that is not a set")
        self._stack[-1].update(checked_key(item) for item in items)


def checked_key(key: Any) -> Any:
    """Returns a dict key if it is a scalar or a tuple of scalars; others could take forever to hash.

    Raises ValueError if the key has another type.
    """
    if not all(isinstance(part, _SCALARS) for part in (key if isinstance(key, tuple) else (key,))):
        raise ValueError(f"it uses a {type(key).__name__} as a key")
    return key


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {checked_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_PUSHED = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
)
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(_PUSHED.split(), _Machine.push),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.call()),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "TUPLE1": lambda machine, _: machine.wrap(1),
    "TUPLE2": lambda machine, _: machine.wrap(2),
    "TUPLE3": lambda machine, _: machine.wrap(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: machine.push(_pairs(machine.since_mark())),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.update([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "GLOBAL": lambda machine, argument: machine.name(argument.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name_on_stack(),
    "BINPERSID": lambda machine, _: machine.persist(machine.pop()),
    "BUILD": lambda machine, _: machine.build(),
}
