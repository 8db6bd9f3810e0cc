"""Groups of devices that communicate, in the forms in which XLA prints them."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

Groups = tuple[tuple[int, ...], ...]

_LISTED = re.compile(r"\{([\d,\s]*)\}")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?$")
_MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]+))\))?\s*\{([^}]*)\}$")
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
        return _cut(_iota(iota[2], iota[3]), prod(_numbers(iota[1])[1:]))
    return _mesh_groups(text)


def _mesh_groups(text: str) -> Groups | None:
    """Returns the groups of devices that differ only in their places along some axes of a mesh, or parts of axes."""
    found = _MESH.match(text)
    if found is None:
        return None
    sizes = {name: int(size) for name, _, _, size in _AXIS.findall(found[1])}
    wanted = [
        (name, int(before or 1), int(part or sizes.get(name, 0))) for name, before, part, _ in _AXIS.findall(found[5])
    ]
    split = _split(sizes, wanted)
    if split is None:
        return None
    dims, last = split
    places = _transposed(dims, [axis for axis in range(len(dims)) if axis not in last] + last)
    devices = _iota(found[2], found[3]) if found[2] else _numbers(found[4] or "") or range(len(places))
    if len(devices) != len(places):
        return None
    return _cut([devices[place] for place in places], prod(dims[axis] for axis in last))


def _split(sizes: Mapping[str, int], wanted: Sequence[tuple[str, int, int]]) -> tuple[list[int], list[int]] | None:
    """Splits the axes of a mesh so that each wanted part is a dimension of its own.

    Returns the dimensions and the numbers of the wanted ones, in their order; None if there are no such parts.

    Args:
      sizes: sizes of the mesh's axes.
      wanted: (axis, product of the sizes of its parts before this one, size of this one).
    """
    dims: list[int] = []
    places: dict[tuple[str, int], int] = {}
    for name, size in sizes.items():
        done = 1
        for before, part in sorted((before, part) for axis, before, part in wanted if axis == name):
            if part == 0 or before % done or size % (before * part):
                return None
            places[name, before] = len(dims) + 1
            dims += [before // done, part]
            done = before * part
        dims.append(size // done)
    if len(places) != len(wanted):
        return None
    return dims, [places[name, before] for name, before, _ in wanted]


def _cut(devices: Sequence[int], size: int) -> Groups:
    return tuple(tuple(devices[at : at + size]) for at in range(0, len(devices), size))


def _iota(dims: str, order: str | None) -> list[int]:
    """Returns the numbers that "[2,4]T(1,0)" means, from the texts of its two lists."""
    sizes = _numbers(dims)
    return _transposed(sizes, _numbers(order) if order else range(len(sizes)))


def _transposed(dims: Sequence[int], order: Sequence[int]) -> list[int]:
    """Returns the numbers 0, 1, 2, … of an array of shape `dims`, read in the order of its transposed dimensions."""
    strides = [prod(dims[axis + 1 :]) for axis in range(len(dims))]
    places = product(*(range(dims[axis]) for axis in order))
    return [sum(place * strides[axis] for place, axis in zip(each, order, strict=True)) for each in places]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())
