"""Memory of the machine, and of its container."""

import os

import pytest

from jclip.io import machine


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 2**20), ("max\n", None), ("9" * 30, None)])
def test_a_container_has_less(tmp_path, monkeypatch, limit, expected):
    file = tmp_path / "memory.max"
    file.write_text(limit)
    monkeypatch.setattr(machine, "_LIMITS", (str(tmp_path / "missing"), str(file)))
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.machine_memory() == (expected or whole)


def test_an_unknown_machine(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert machine.machine_memory() is None
