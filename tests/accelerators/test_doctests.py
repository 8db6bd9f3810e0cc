"""Examples in docstrings."""

import doctest

import pytest

from jclip.accelerators import groups, hlo_text, peaks, shapes


@pytest.mark.parametrize("module", [groups, hlo_text, peaks, shapes])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
