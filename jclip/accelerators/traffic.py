"""Bytes that an instruction of optimised HLO reads and writes in its device's memory.

- An operand is read once and a result is written once, with the padding of TPU's tiles.
- Arrays in a TPU's vector memory, on the chip, count nothing. Copies between it and main memory count.
- Of a fusion, the operands and results count, and nothing inside it.
- Of an array that is only sliced, the slices count. So each iteration of a loop over stacked layers reads one layer.
- Of an array that is updated in place, the update counts.
- Of gathers and scatters, the rows that they touch count.
"""

from collections.abc import Iterable

from jclip.accelerators.hlo_text import Array, Computation, Instruction, Module, leaves
from jclip.accelerators.products import target_of

_FREE = frozenset(
    {
        "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "opt-barrier", "add-dependency", "domain", "async-update", "async-done",
    }
)  # fmt: skip
_FREE_CALLS = frozenset({"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding"})
_SLICES = frozenset({"slice", "dynamic-slice", "gather"})
_UPDATES = frozenset({"dynamic-update-slice", "scatter"})
_VIEWS = frozenset({"bitcast", "reshape"})


def count_traffic(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Returns the bytes that one execution of an instruction reads and writes in the device's memory."""
    opcode = instruction.opcode
    if opcode in _FREE or (opcode == "custom-call" and target_of(instruction) in _FREE_CALLS):
        return 0
    if opcode == "fusion":
        return _fusion(instruction, computation, module)
    results, operands = leaves(instruction.shape), computation.operands(instruction)
    if opcode.endswith("-done"):
        return 0 if operands[0].base in _UPDATES else _in_memory(results)
    begins = opcode.endswith("-start")  # the result is written by its -done
    if instruction.base in _SLICES:
        source, shape = leaves(operands[0].shape)[0], instruction.shape
        piece = leaves(shape[1] if isinstance(shape, tuple) else shape)[0]
        read = piece.stored if source.in_memory else 0
        return read + _all_in_memory(operands[1:]) + (0 if begins else _in_memory((piece,)))
    if instruction.base in _UPDATES:
        return _all_in_memory(operands[1:]) + (_update(instruction, computation) if results[0].in_memory else 0)
    read = _all_in_memory(operands)
    if begins:
        return read
    if opcode == "custom-call" and len(results) > 1 and results[-1].dtype in ("s8", "u8"):
        results = results[:-1]  # the library's scratch space
    return read + _in_memory(results)


def _fusion(fusion: Instruction, computation: Computation, module: Module) -> int:
    (inside,) = module.called(fusion)
    read = 0
    for name in dict.fromkeys(fusion.operands):
        given = [each for each in leaves(computation.instructions[name].shape) if each.in_memory]
        numbers = [number for number, each in enumerate(fusion.operands) if each == name]
        whole = sum(each.stored for each in given)
        read += min(whole, sum(_read(inside.parameters[number], inside, module) for number in numbers)) if whole else 0
    results = leaves(fusion.shape)
    roots = inside.operands_in_order(inside.root) if inside.root.opcode == "tuple" else [inside.root]
    if len(roots) != len(results):
        return read + _in_memory(results)
    return read + sum(
        _written(root, inside, module) for root, result in zip(roots, results, strict=True) if result.in_memory
    )


def _read(value: Instruction, inside: Computation, module: Module) -> int:
    """Returns the bytes of a parameter that the instructions of a fusion read; slices may overlap."""
    whole = sum(each.stored for each in leaves(value.shape))
    total = 0
    for user in inside.users.get(value.name, ()):
        first = user.operands[0] == value.name and value.name not in user.operands[1:]
        if first and user.opcode in _SLICES:
            total += user.array.stored
        elif first and user.opcode in _UPDATES:
            total += 0 if _updates_in_place(user, inside) else whole
        elif user.opcode in _VIEWS:
            total += _read(user, inside, module)
        elif user.opcode == "fusion":
            (nested,) = module.called(user)
            for number in (number for number, each in enumerate(user.operands) if each == value.name):
                total += _read(nested.parameters[number], nested, module)
                if _viewed(nested.root, nested) is nested.parameters[number]:
                    total += _read(user, inside, module)
        elif user.opcode != "tuple":  # a tuple passes it on, in place
            return whole
    return min(whole, total)


def _written(root: Instruction, inside: Computation, module: Module) -> int:
    """Returns the bytes that a fusion writes for one of its results."""
    if root.opcode in _VIEWS:
        return _written(inside.operand(root, 0), inside, module)
    if root.opcode == "parameter":
        return 0
    if root.opcode in _UPDATES and _updates_in_place(root, inside):
        return _update(root, inside)
    if root.opcode == "fusion" and not isinstance(root.shape, tuple):
        (nested,) = module.called(root)
        return _written(nested.root, nested, module)
    return sum(each.stored for each in leaves(root.shape))


def _updates_in_place(update: Instruction, inside: Computation) -> bool:
    """Returns True if an update changes a parameter's array, possibly after other updates."""
    target = update
    while target.opcode in _UPDATES:
        target = _viewed(inside.operand(target, 0), inside)
    return target.opcode == "parameter"


def _viewed(value: Instruction, inside: Computation) -> Instruction:
    """Returns the instruction whose result a value is a view of; the value itself if it is no view."""
    while value.opcode in _VIEWS:
        value = inside.operand(value, 0)
    return value


def _update(update: Instruction, computation: Computation) -> int:
    """Returns the bytes of the updated part of the array; a scatter also reads the rows that it adds to."""
    if update.base == "scatter":
        return 2 * leaves(computation.operand(update, 2).shape)[0].stored
    return leaves(computation.operand(update, 1).shape)[0].stored


def _all_in_memory(values: Iterable[Instruction]) -> int:
    return sum(_in_memory(leaves(each.shape)) for each in values)


def _in_memory(arrays: tuple[Array, ...]) -> int:
    return sum(each.stored for each in arrays if each.in_memory)
