"""docs/layers.svg shows the current layers and imports."""

import re

from docs import layers


def test_the_picture_is_up_to_date():
    assert layers.FILE.read_text(encoding="utf-8") == layers.picture(), "run: python -m docs.layers"


def test_every_part_is_in_the_picture_once():
    shown = re.findall(r'<text x="[^"]*" y="[^"]*">(\w+)</text>', layers.picture())
    assert sorted(shown) == sorted(part for row in layers.layers() for part in row)


def test_imports_that_follow_from_others_are_omitted():
    below = layers.imports(layers.layers())
    assert "evaluators" in below["running"] and not {"train", "models"} & below["running"]
