"""docs/floors.svg shows the current floors and imports."""

import re

from docs import floors


def test_the_picture_is_up_to_date():
    assert floors.FILE.read_text(encoding="utf-8") == floors.picture(), "run: python -m docs.floors"


def test_every_room_is_in_the_picture_once():
    shown = re.findall(r'<text x="[^"]*" y="[^"]*">(\w+)</text>', floors.picture())
    assert sorted(shown) == sorted(room for row in floors.floors() for room in row)


def test_imports_that_follow_from_others_are_omitted():
    below = floors.imports(floors.floors())
    assert "evaluators" in below["running"] and not {"train", "models"} & below["running"]
