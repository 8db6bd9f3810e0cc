"""Bytes and seconds in words."""

import pytest

from jclip.units import format_duration, format_size


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (1023 << 20, "1023 MiB"), (1 << 40, "1 TiB")],
)
def test_sizes_for_people(count, said):
    assert format_size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "0.012 s"), (89, "89 s"), (90, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (2 * 86400, "2.0 days")],
)
def test_durations_for_people(seconds, said):
    assert format_duration(seconds) == said
