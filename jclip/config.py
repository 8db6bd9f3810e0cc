"""JSON form, comparison and type checks of configurations, which are frozen dataclasses.

A field that holds one of several dataclasses, such as an image tower, is declared as a union or as a protocol. Classes
register for a protocol with `kind_of`, so that other packages can add their own. A file names the class under "type".
If that class is not registered yet, `jclip.outside` imports it, from where the user or an installed package says.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jclip.errors import JclipError
from jclip.names import suggestion
from jclip.outside import KINDS, import_kind
from jclip.plain import shown

T = TypeVar("T")
_TYPE = "type"
_KINDS: dict[type, dict[str, type]] = {}
"""Registered dataclasses by name, for each protocol."""
_CALLABLES = {"type": "class", "builtin_function_or_method": "function"}
"""Words for Python's types of callables, for messages."""


def kind_of(protocol: type) -> Callable[[type[T]], type[T]]:
    """Returns a class decorator that registers a dataclass, under its class's name, for fields declared as `protocol`.

    If `protocol` is an abstract base class that the dataclass inherits, the command line can also set the fields of a
    default (`--model.image.layers 3`). Raises JclipError if another class of this name is registered.
    """

    def register(cls: type[T]) -> type[T]:
        known = _KINDS.setdefault(protocol, {}).setdefault(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise JclipError(
                f"{cls.__module__}.{cls.__qualname__}: {known.__module__} has a {protocol.__name__} of this name "
                "already; rename one of them"
            )
        _KINDS[protocol][cls.__name__] = cls  # a module that is loaded again replaces its classes
        return cls

    return register


def kinds_of(protocol: type) -> tuple[type, ...]:
    """Returns the dataclasses that are registered for `protocol`."""
    return tuple(_KINDS.get(protocol, {}).values())


def to_json(value: Any, where: str = "", *, defaults: bool = True) -> Any:
    """Returns a dataclass and its values as dicts, lists and scalars.

    Without `defaults`, fields that have their default are omitted, so that the form of a value stays the same when a
    later version adds a field. Raises JclipError if a value has another type. The message gives the field's path after
    `where`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if defaults or getattr(value, f.name) != _default(f)]
        return {
            _TYPE: type(value).__name__,
            **{name: to_json(getattr(value, name), _at(where, name), defaults=defaults) for name in names},
        }
    if isinstance(value, dict):
        return {str(key): to_json(item, _at(where, key), defaults=defaults) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, _at(where, number), defaults=defaults) for number, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    place, kind = where or "a configuration", type(value).__name__
    if isinstance(value, type) or callable(value):
        name = getattr(value, "__qualname__", kind)
        raise JclipError(f"{place} is the {_CALLABLES.get(kind, kind)} {name} itself, but must be a value: call it")
    said = "a value" if type(value).__repr__ is object.__repr__ else shown(repr(value))
    raise JclipError(f"{place} cannot hold {said} of type {kind}: use numbers, strings, lists and dataclasses")


def from_json(cls: type[T], data: Any, where: str = "") -> T:
    """Returns the instance of the dataclass `cls` that `to_json` wrote as `data`.

    Raises JclipError if a field or class is unknown, or a value has the wrong type. The message gives the field's path.
    """
    return typing.cast(T, _read(cls, data, where or cls.__name__))


def check_types(value: Any) -> None:
    """Checks the values of a dataclass, at any depth, against the declared types of its fields.

    Raises JclipError, which gives the field's path, if a value has the wrong type or is not among a field's choices.
    """
    _read(type(value), to_json(value), "")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the scalars of a JSON form with their dotted paths: ("stages.0.batch_size", 128)."""
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    else:
        yield path, value
        return
    for key, item in items:
        yield from leaves(item, _at(path, key))


def difference(old: Any, new: Any) -> list[str]:
    """Returns a line for each scalar that differs between two JSON forms: "stages.0.batch_size: 64, now 128"."""
    before, after = dict(leaves(old)), dict(leaves(new))
    missing = "absent"
    return [
        f"{path}: {before.get(path, missing)!r}, now {after.get(path, missing)!r}"
        for path in dict.fromkeys([*before, *after])
        if before.get(path, missing) != after.get(path, missing)
    ]


def _read(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, data, where)
    if isinstance(kind, type) and kind in _KINDS:
        if isinstance(data, dict) and (name := str(data.get(_TYPE, ""))) not in _KINDS[kind]:
            import_kind(name)
        return _read_union(kinds_of(kind), data, where, registered=True)
    if origin is typing.Literal:
        return _expect(data in arguments, data, where, f"one of {', '.join(map(repr, arguments))}")
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, data, where)
    if origin in (tuple, list):
        _expect(isinstance(data, list | tuple), data, where, "a list")
        kinds = [arguments[0]] * len(data) if origin is list or arguments[-1:] == (...,) else list(arguments)
        _expect(len(kinds) == len(data), data, where, f"{len(kinds)} values")
        return origin(_read(k, item, _at(where, i)) for i, (k, item) in enumerate(zip(kinds, data, strict=True)))
    if origin is dict:
        _expect(isinstance(data, dict), data, where, "a dict")
        return {str(name): _read(arguments[1], item, _at(where, name)) for name, item in data.items()}
    if kind is float:
        numeric = isinstance(data, int | float) and not isinstance(data, bool)
        try:
            return float(_expect(numeric, data, where, "a number"))
        except OverflowError:
            return _expect(False, data, where, "a smaller number")
    right_type = isinstance(data, kind) and not (kind is int and isinstance(data, bool))
    return _expect(right_type, data, where, f"of type {getattr(kind, '__name__', kind)}")


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), data, where, f"a dict with the fields of {kind.__name__}")
    names = [f.name for f in dataclasses.fields(kind)]
    for name in data:
        if name not in names and name != _TYPE:
            raise JclipError(f"{where} has no field {shown(repr(name))}: {suggestion(str(name), names)}")
    hints = typing.get_type_hints(kind)
    values = {name: _read(hints[name], data[name], _at(where, name)) for name in names if name in data}
    try:
        return kind(**values)
    except (TypeError, JclipError) as error:
        raise JclipError(f"{where}: {error}" if where else str(error)) from None


def _read_union(kinds: tuple[Any, ...], data: Any, where: str, registered: bool = False) -> Any:
    if data is None and type(None) in kinds:
        return None
    if isinstance(data, dict) and _TYPE in data:
        for kind in kinds:
            if getattr(kind, "__name__", "") == data[_TYPE]:
                return _read(kind, data, where)
        names = ", ".join(kind.__name__ for kind in kinds)
        hint = f", or set {KINDS} to the module or .py file that registers it" if registered else ""
        raise JclipError(f"{where} cannot be a {shown(str(data[_TYPE]))}: choose one of {names}{hint}")
    for kind in kinds:
        if not dataclasses.is_dataclass(kind) and kind is not type(None):
            try:
                return _read(kind, data, where)
            except JclipError:
                continue  # another member of the union may fit
    return _expect(False, data, where, " or ".join(getattr(k, "__name__", str(k)) for k in kinds))


def _default(field: "dataclasses.Field[Any]") -> Any:
    """Returns a field's default, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _at(where: str, name: str | int) -> str:
    return f"{where}.{name}" if where else str(name)


def _expect(right: bool, data: Any, where: str, what: str) -> Any:
    if not right:
        raise JclipError(f"{where} is {shown(repr(data))}, but must be {what}")
    return data
