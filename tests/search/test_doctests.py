"""Examples in the docstrings of search."""

import doctest

import pytest

from jclip.search import filters, queries, terminal_images
from jclip.search.stores import addresses, rows


@pytest.mark.parametrize(
    "module", [filters, queries, terminal_images, addresses, rows], ids=lambda module: module.__name__
)
def test_examples_are_right(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
