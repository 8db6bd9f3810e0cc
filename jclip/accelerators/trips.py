"""Trip counts: numbers of iterations of the loops of optimised HLO."""

from collections.abc import Mapping

from jclip.accelerators.hlo_text import Computation, Instruction, Module

_PASSED_ON = ("copy", "bitcast", "reshape", "convert")
_AT_THE_BOUND = {"LT": 0, "LE": 1, "NE": 0}
"""Iterations with the counter at the bound, for the comparisons that a loop may end with."""


def trip_count(loop: Instruction, computation: Computation, module: Module) -> int | None:
    """Returns the number of iterations of a `while`; None if it is not in the text.

    XLA for CUDA and CPU writes it down (known_trip_count). For TPU it follows from the condition, `counter < bound`,
    and from the counter's first value and step.
    """
    known = loop.config.get("known_trip_count")
    if isinstance(known, Mapping) and str(known.get("n", "")).isdigit():
        return int(known["n"])
    condition = module.computation(loop.attributes.get("condition", "").lstrip("%"))
    test = condition.root
    if test.opcode != "compare" or test.attributes.get("direction") not in _AT_THE_BOUND:
        return None
    counter = _place(condition.operand(test, 0), condition)
    if counter is None:
        return None
    start = _first_value(counter, loop, computation)
    bound = _bound(condition.operand(test, 1), condition, loop, computation)
    step = _step(counter, module.computation(loop.attributes.get("body", "").lstrip("%")))
    if start is None or bound is None or not step or step < 0:
        return None
    return max(0, -(-(bound + _AT_THE_BOUND[test.attributes["direction"]] - start) // step))


def _bound(value: Instruction, condition: Computation, loop: Instruction, computation: Computation) -> int | None:
    place = _place(value, condition)
    return _constant(value, condition) if place is None else _first_value(place, loop, computation)


def _first_value(place: int, loop: Instruction, computation: Computation) -> int | None:
    start = computation.operand(loop, 0)
    return _constant(computation.operand(start, place), computation) if start.opcode == "tuple" else None


def _step(counter: int, body: Computation) -> int | None:
    """Returns what the body adds to the counter, if it is a constant."""
    if body.root.opcode != "tuple":
        return None
    following = _origin(body.operand(body.root, counter), body)
    if following.opcode != "add":
        return None
    sides = [body.operand(following, number) for number in range(len(following.operands))]
    steps = [_constant(each, body) for each in sides if _place(each, body) != counter]
    return steps[0] if len(steps) == 1 and len(sides) == 2 else None


def _place(value: Instruction, computation: Computation) -> int | None:
    """Returns the place in the loop's tuple from which a value comes."""
    value = _origin(value, computation)
    if value.opcode != "get-tuple-element" or computation.operand(value, 0).opcode != "parameter":
        return None
    return int(value.attributes.get("index", "-1"))


def _constant(value: Instruction, computation: Computation) -> int | None:
    value = _origin(value, computation)
    return int(value.arguments) if value.opcode == "constant" and value.arguments.lstrip("-").isdigit() else None


def _origin(value: Instruction, computation: Computation) -> Instruction:
    while value.opcode in _PASSED_ON:
        value = computation.operand(value, 0)
    return value
