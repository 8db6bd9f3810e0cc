"""Marks at the fields of configurations, such as `folder: Folder`, and the walk that finds these and ranges."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


Mark = Enum("Mark", "FREE FOLDER MIXING")

Free = Annotated[T, Mark.FREE]
"""Field that a resumed run may change. Results change at most by rounding."""
Folder = Annotated[str, Mark.FOLDER]
"""Name of a folder. The folder may move, but its contents may not change."""
Mixing = Annotated[T, Mark.MIXING]
"""Field of a data source that decides how often, or in which role, a record is drawn, but not the records."""


def walk(config: Any, path: str = "") -> Iterator[tuple[str, Any, Any, tuple[Any, ...]]]:
    """Yields (dotted path, value, type, annotations) of every field and item of a dataclass, at any depth.

    An item has the annotations of its tuple too. A field declared as a union is yielded for each member.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        yield from _walk(hints[field.name], getattr(config, field.name), f"{path}{'.' if path else ''}{field.name}", ())


def marked(config: Any, mark: Mark) -> list[str]:
    """Returns the dotted paths of the fields and items with a mark."""
    return list(dict.fromkeys(path for path, _, _, extras in walk(config) if mark in extras))


def _walk(kind: Any, value: Any, path: str, extras: tuple[Any, ...]) -> Iterator[tuple[str, Any, Any, tuple[Any, ...]]]:
    if typing.get_origin(kind) is Annotated:
        extras, kind = (*kind.__metadata__, *extras), kind.__origin__
    members = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for member in members:
            yield from _walk(member, value, path, extras)
        return
    yield path, value, kind, extras
    if dataclasses.is_dataclass(value):
        yield from walk(value, path)
    elif isinstance(value, tuple | list) and members:  # not for the None of an optional tuple
        kinds = members[:1] * len(value) if members[-1] is ... or isinstance(value, list) else members
        for number, (item_kind, item) in enumerate(zip(kinds, value, strict=False)):
            yield from _walk(item_kind, item, f"{path}.{number}", extras)
