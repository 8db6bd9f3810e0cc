"""Marks at the fields of configurations, such as `folder: Folder`, and the walk that finds these and ranges."""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Annotated, Any, TypeVar, cast

T = TypeVar("T")


Mark = Enum("Mark", "FREE FOLDER BUNDLE MIXING")

Free = Annotated[T, Mark.FREE]
"""Field that a resumed run may change. Results change at most by rounding."""
Folder = Annotated[str, Mark.FOLDER]
"""Name of a folder. The folder may move, but its contents may not change."""
BundleFolder = Annotated[str, Mark.FOLDER, Mark.BUNDLE]
"""`Folder` of a bundle, or another source of `jclip.load`, in whose place a run gets the folder of its conversion."""
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


def replaced(config: T, mark: Mark, change: Callable[[str], str]) -> T:
    """Returns a dataclass with `change` applied to the strings of the fields and items with a mark, at any depth."""
    return cast(T, _replaced(config, "", set(marked(config, mark)), change))


def _replaced(value: Any, path: str, paths: set[str], change: Callable[[str], str]) -> Any:
    if not any(each == path or not path or each.startswith(f"{path}.") for each in paths):
        return value
    if path in paths and isinstance(value, str):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_replaced(item, f"{path}.{number}", paths, change) for number, item in enumerate(value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    names = [field.name for field in dataclasses.fields(value)]
    dot = "." if path else ""
    found = {name: _replaced(getattr(value, name), f"{path}{dot}{name}", paths, change) for name in names}
    changed = {name: new for name, new in found.items() if new != getattr(value, name)}
    return dataclasses.replace(value, **changed) if changed else value


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
