"""Fixtures of the towers' tests."""

import pytest

from jclip.models import transformer


@pytest.fixture
def scanned(monkeypatch):
    """Makes shallow towers use a scan like deep ones, in what the test traces."""
    monkeypatch.setattr(transformer, "SHALLOW", 0)
