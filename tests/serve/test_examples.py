import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["endpoints.conditions", "fetching", "fields", "guard", "images", "server", "speeds"])
def test_examples_of_docstrings(name):
    found = doctest.testmod(import_module(f"jclip.serve.{name}"))
    assert found.attempted and not found.failed
