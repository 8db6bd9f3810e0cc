"""Examples in docstrings."""

import doctest

import pytest

from jclip.accelerators import peaks, shapes


@pytest.mark.parametrize("module", [peaks, shapes])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
