"""Fixtures of the towers' tests."""

import pytest

from jclip.models import transformer


@pytest.fixture
def scanned(monkeypatch):
    """Shallow towers are scanned like deep ones, as far as the test traces them."""
    monkeypatch.setattr(transformer, "SHALLOW", 0)
