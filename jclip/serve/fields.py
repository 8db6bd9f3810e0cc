"""Kinds of JSON values in requests. A kind checks a value, and describes itself in the OpenAPI description.

So the description of a request cannot differ from what the service accepts.

    >>> request = Record({"k": Field(Whole(1, 100), default=10)}, closed=True)
    >>> request.read({}, ""), request.read({"k": 5}, "")
    ({'k': 10}, {'k': 5})
    >>> request.read({"k": 0}, "")
    Traceback (most recent call last):
    ...
    jclip.serve.refusals.Refusal: k: 0 is not a whole number from 1 to 100
"""

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jclip.plain import shown
from jclip.serve.refusals import Refusal, over_limit, wrong

Schema = dict[str, Any]


class Kind(Protocol):
    """Kind of a JSON value."""

    @property
    def words(self) -> str:
        """Description for messages: "a string"."""

    def schema(self) -> Schema:
        """Returns the JSON schema of the accepted values."""

    def fits(self, value: Any) -> bool:
        """Returns True if the JSON type is right."""

    def read(self, value: Any, where: str) -> Any:
        """Returns the checked value. Raises Refusal, which names `where`."""


@dataclass(frozen=True)
class Text:
    """A string, not empty.

    Attributes:
      most: maximum number of characters; None for no limit but the body's.
      option: command-line option that sets `most`.
      choices: accepted strings; empty for all.
      form: JSON schema's "format".
      path: a name of a file, which may have the surrogates of one that is not UTF-8.
    """

    most: int | None = None
    option: str = ""
    choices: tuple[str, ...] = ()
    form: str = ""
    path: bool = False

    @property
    def words(self) -> str:
        """Description for messages."""
        return f"one of {', '.join(self.choices)}" if self.choices else "a string"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        if self.choices:
            return {"type": "string", "enum": list(self.choices)}
        most = {"maxLength": self.most} if self.most is not None else {}
        return {"type": "string", "minLength": 1, **most, **({"format": self.form} if self.form else {})}

    def fits(self, value: Any) -> bool:
        """Returns True for a string."""
        return isinstance(value, str)

    def read(self, value: Any, where: str) -> str:
        """Returns the string. Raises Refusal if it is empty, too long, not a choice, or not valid Unicode."""
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            raise _not(value, self, where)
        if not value:
            raise Refusal(400, "empty", f"{where}: it is empty")
        if self.most is not None and len(value) > self.most:
            raise over_limit(where, f"{len(value)} characters", str(self.most), self.option)
        try:
            os.fsencode(value) if self.path else value.encode()
        except UnicodeEncodeError:
            raise wrong(where, "it has an unpaired surrogate, which is not a valid character") from None
        return value


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    @property
    def words(self) -> str:
        """Description for messages."""
        return f"a whole number from {self.low} to {self.high}"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def fits(self, value: Any) -> bool:
        """Returns True for a whole number. 3.0 is one, as in JSON schema."""
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )

    def read(self, value: Any, where: str) -> int:
        """Returns the number. Raises Refusal if it is out of range."""
        if not (self.fits(value) and self.low <= value <= self.high):
            raise _not(value, self, where)
        return int(value)


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`."""

    low: float = -3e38
    high: float = 3e38

    @property
    def words(self) -> str:
        """Description for messages."""
        return f"a number from {self.low:g} to {self.high:g}"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def fits(self, value: Any) -> bool:
        """Returns True for a finite number."""
        return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)

    def read(self, value: Any, where: str) -> float:
        """Returns the number. Raises Refusal if it is out of range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise _not(value, self, where)
        return float(value)


@dataclass(frozen=True)
class Flag:
    """true or false."""

    words: str = "true or false"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        return {"type": "boolean"}

    def fits(self, value: Any) -> bool:
        """Returns True for true and false."""
        return isinstance(value, bool)

    def read(self, value: Any, where: str) -> bool:
        """Returns the value. Raises Refusal for others."""
        if not isinstance(value, bool):
            raise _not(value, self, where)
        return value


@dataclass(frozen=True)
class ListOf:
    """A list of 1 to `most` items; `least` may be 0. `option` sets `most`."""

    kind: Kind
    most: int
    option: str = ""
    least: int = 1

    @property
    def words(self) -> str:
        """Description for messages."""
        return "a list"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        return {"type": "array", "items": self.kind.schema(), "minItems": self.least, "maxItems": self.most}

    def fits(self, value: Any) -> bool:
        """Returns True for a list."""
        return isinstance(value, list)

    def read(self, value: Any, where: str) -> list[Any]:
        """Returns the checked items. Raises Refusal if there are too many or too few, or one is wrong."""
        if not isinstance(value, list):
            raise _not(value, self, where)
        if not value and self.least:
            raise Refusal(400, "empty", f"{where}: the list is empty")
        if len(value) > self.most or len(value) < self.least:
            if self.option:
                raise over_limit(where, f"{len(value)} items", str(self.most), self.option)
            numbers = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
            raise wrong(where, f"the list has {len(value)} items, but must have {numbers}")
        return [self.kind.read(item, f"{where}[{number}]") for number, item in enumerate(value)]


@dataclass(frozen=True)
class MapOf:
    """An object with any names, at most `most`, and values of one kind."""

    kind: Kind
    most: int

    @property
    def words(self) -> str:
        """Description for messages."""
        return "an object"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        return {
            "type": "object",
            "propertyNames": {"minLength": 1},
            "additionalProperties": self.kind.schema(),
            "maxProperties": self.most,
        }

    def fits(self, value: Any) -> bool:
        """Returns True for an object."""
        return isinstance(value, dict)

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Returns the checked values. Raises Refusal if there are too many, or one is wrong."""
        if not isinstance(value, dict):
            raise _not(value, self, where)
        if len(value) > self.most:
            raise wrong(where, f"the object has {len(value)} names, but must have {self.most} or fewer")
        return {
            Text().read(name, f"{where}: a name"): self.kind.read(each, f"{where}.{shown(name, 40)}")
            for name, each in value.items()
        }


@dataclass(frozen=True)
class OneOf:
    """A value of one of several kinds, which differ in their JSON type."""

    kinds: tuple[Kind, ...]

    @property
    def words(self) -> str:
        """Description for messages."""
        return " or ".join(kind.words for kind in self.kinds)

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        return {"anyOf": [kind.schema() for kind in self.kinds]}

    def fits(self, value: Any) -> bool:
        """Returns True if a kind fits."""
        return any(kind.fits(value) for kind in self.kinds)

    def read(self, value: Any, where: str) -> Any:
        """Returns the value as the first kind that fits reads it. Raises Refusal if none does."""
        kind = next((kind for kind in self.kinds if kind.fits(value)), None)
        if kind is None:
            raise _not(value, self, where)
        return kind.read(value, where)


@dataclass(frozen=True)
class Field:
    """Field of a record.

    Attributes:
      kind: kind of the value.
      default: value if the field is omitted or null.
      required: the field must be given.
      about: description for the OpenAPI description.
      example: a value for the OpenAPI description.
    """

    kind: Kind
    about: str = ""
    default: Any = None
    required: bool = False
    example: Any = None

    def schema(self) -> Schema:
        """Returns the JSON schema; a field that is not required may be null."""
        schema = self.kind.schema()
        if not self.required:
            schema = {"anyOf": [*schema["anyOf"], {"type": "null"}]} if "anyOf" in schema else _nullable(schema)
        if self.default is not None:
            schema["default"] = self.default
        if self.example is not None:
            schema["examples"] = [self.example]
        return {**schema, "description": self.about} if self.about else schema


@dataclass(frozen=True)
class Record:
    """A JSON object.

    Attributes:
      fields: fields by name.
      closed: other fields are an error; otherwise they are ignored.
      exactly_one: names of fields of which one must be given; empty for no such rule.
    """

    fields: Mapping[str, Field]
    closed: bool = False
    exactly_one: Sequence[str] = field(default=())

    @property
    def words(self) -> str:
        """Description for messages."""
        return "an object"

    def schema(self) -> Schema:
        """Returns the JSON schema."""
        found: Schema = {
            "type": "object",
            "properties": {name: field.schema() for name, field in self.fields.items()},
        }
        if required := [name for name, field in self.fields.items() if field.required]:
            found["required"] = required
        if self.closed:
            found["additionalProperties"] = False
        if self.exactly_one:
            # "Given" means present and not null.
            given = [
                {"required": [name], "properties": {name: self.fields[name].kind.schema()}} for name in self.exactly_one
            ]
            found["oneOf"] = given
        return found

    def fits(self, value: Any) -> bool:
        """Returns True for an object."""
        return isinstance(value, dict)

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Returns the fields with defaults for those omitted. Raises Refusal, which names the wrong field."""
        if not isinstance(value, dict):
            raise _not(value, self, where)
        dot = f"{where}." if where else ""
        unknown = next((name for name in value if name not in self.fields), None)
        if self.closed and unknown is not None:
            close = difflib.get_close_matches(unknown, self.fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(self.fields)}"
            raise Refusal(422, "unknown_field", f"{dot}{shown(unknown, 40)} is not a field: {hint}")
        found = {}
        for name, each in self.fields.items():
            given = value.get(name)
            if given is None and each.required:
                raise Refusal(422, "missing_field", f"{dot}{name} is missing: give {each.kind.words}")
            found[name] = each.default if given is None else each.kind.read(given, f"{dot}{name}")
        if self.exactly_one:
            given_names = [name for name in self.exactly_one if value.get(name) is not None]
            if len(given_names) != 1:
                had = " and ".join(given_names) or "none"
                names = ", ".join(self.exactly_one)
                raise wrong(where, f"give exactly one of {names}; the request has {had}")
        return found


def _nullable(schema: Schema) -> Schema:
    if "enum" in schema:
        return {**schema, "type": [schema["type"], "null"], "enum": [*schema["enum"], None]}
    if schema.get("type") == "object":
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def _not(value: Any, kind: Kind, where: str) -> Refusal:
    place = f"{where}: " if where else ""
    return Refusal(422, "invalid_type", f"{place}{shown(_briefly(value), 60)} is not {kind.words}")


def _briefly(value: Any) -> str:
    """Returns a value for a message: containers by their type, which may be large."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value[:60] if isinstance(value, str) else value)
