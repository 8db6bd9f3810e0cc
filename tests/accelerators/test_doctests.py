"""Examples in docstrings."""

import doctest

import pytest

from jclip.accelerators import groups, hlo_text, peaks, shapes, targets


@pytest.mark.parametrize("module", [groups, hlo_text, peaks, shapes, targets])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
