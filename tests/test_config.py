"""JSON form of configurations: exact round trips, and errors that name the field."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from jclip.config import check_types, difference, from_json, kind_of, kinds_of, to_json
from jclip.errors import JclipError


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True)
class Box:
    sides: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Scene:
    shape: Circle | Box
    colour: Literal["red", "blue"] = "red"
    label: str | None = None
    rules: tuple[tuple[str, bool], ...] = ((".*", True),)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)


@pytest.mark.parametrize(
    "scene", [Scene(Circle(2.0)), Scene(Box((3,)), "blue", "x", (("a", False), ("b", True)), {"one": (0.5, 2.0)})]
)
def test_round_trip(scene):
    assert from_json(Scene, to_json(scene)) == scene


def test_without_defaults_only_other_values_are_written():
    scene = Scene(Box((3,)), "blue")
    short = {"type": "Scene", "shape": {"type": "Box", "sides": [3]}, "colour": "blue"}
    assert to_json(scene, defaults=False) == short
    assert to_json(Scene(Circle()), defaults=False) == {"type": "Scene", "shape": {"type": "Circle"}}
    assert from_json(Scene, short) == scene


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coluor": "red"}, "Scene has no field 'coluor': did you mean colour"),
        ({"colour": "green"}, "Scene.colour is 'green', but must be one of 'red', 'blue'"),
        ({"shape": {"type": "Cone"}}, "Scene.shape cannot be a Cone: choose one of Circle, Box"),
        ({"shape": {"type": "Circle", "radius": "big"}}, "Scene.shape.radius is 'big', but must be a number"),
        ({"spans": {"one": [1]}}, r"Scene.spans.one is \[1\], but must be 2 values"),
        ({"spans": 3}, "Scene.spans is 3, but must be a dict"),
        ({"rules": [["a"]]}, r"Scene.rules.0 is \['a'\], but must be 2 values"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(JclipError, match=message):
        from_json(Scene, {**to_json(Scene(Circle())), **change})


def test_difference_names_the_fields():
    old, new = to_json(Scene(Box((1, 2)))), to_json(Scene(Box((1, 3)), "blue"))
    assert difference(old, new) == ["shape.sides.1: 2, now 3", "colour: 'red', now 'blue'"]
    assert difference(old, old) == []


@dataclass(frozen=True)
class Film:
    scenes: tuple[Scene, ...]
    length: float = 1.0
    frames: int | None = None


@pytest.mark.parametrize(
    ("film", "message"),
    [
        (Film((Scene(Circle(), "green"),)), r"^scenes\.0\.colour is 'green', but must be one of 'red', 'blue'$"),
        (Film((Scene(Circle()),), "long"), r"^length is 'long', but must be a number$"),
        (Film((Scene(Box((1, "2"))),)), r"^scenes\.0\.shape\.sides\.1 is '2', but must be of type int$"),
        (Film((), frames=1.5), r"^frames is 1\.5, but must be int or NoneType$"),
        (
            Film((Scene(Circle(1j)),)),
            r"^scenes\.0\.shape\.radius cannot hold 1j of type complex: use numbers, strings, lists and dataclasses$",
        ),
    ],
)
def test_types_that_python_does_not_check(film, message):
    check_types(Film((Scene(Circle()), Scene(Box(), rules=()))))
    with pytest.raises(JclipError, match=message):
        check_types(film)


class Sound:
    """Protocol for which any package may register its own kind."""


@kind_of(Sound)
@dataclass(frozen=True)
class Bell(Sound):
    tone: int = 1


@dataclass(frozen=True)
class Tower:
    sound: Sound


def test_an_open_field_holds_what_is_registered():
    tower = Tower(Bell(3))
    assert from_json(Tower, to_json(tower)) == tower
    assert kinds_of(Sound) == (Bell,)
    with pytest.raises(JclipError, match=r"Tower.sound cannot be a Horn: choose one of Bell"):
        from_json(Tower, {"type": "Tower", "sound": {"type": "Horn"}})


def test_two_kinds_cannot_share_a_name():
    other = dataclass(frozen=True)(type("Bell", (Sound,), {"__module__": "elsewhere"}))
    with pytest.raises(JclipError, match=r"elsewhere.Bell: .* has a Sound of this name already; rename"):
        kind_of(Sound)(other)
