"""Memory of the machine, and of its container."""

import os

import pytest

from jclip.io import machine

GIB = 2**30
VERSIONS = (
    ("", "memory.max", "memory.current", ""),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


@pytest.fixture
def container(tmp_path, monkeypatch):
    """The container's folder, which is empty."""
    folders = (str(tmp_path), str(tmp_path / "memory"))
    containers = (each._replace(folder=folder) for each, folder in zip(machine._CONTAINERS, folders, strict=True))
    monkeypatch.setattr(machine, "_CONTAINERS", tuple(containers))
    (tmp_path / "memory").mkdir()
    return tmp_path


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 2**20), ("max\n", None), ("9" * 30, None)])
@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_less(container, file, limit, expected):
    (container / file).write_text(limit)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.machine_memory() == (expected or whole)


@pytest.mark.parametrize(("folder", "limit", "used", "prefix"), VERSIONS)
def test_cached_files_are_free(container, monkeypatch, folder, limit, used, prefix):
    monkeypatch.setattr(machine, "_machine_free", lambda: 100 * GIB)
    assert machine.free_memory() == 100 * GIB
    (container / folder / limit).write_text(f"{8 * GIB}\n")
    (container / folder / used).write_text(f"{7 * GIB}\n")
    assert machine.free_memory() == GIB  # it does not say what is cached
    entries = {"anon": GIB, f"{prefix}inactive_file": 2 * GIB, f"{prefix}active_file": GIB, "file": 5 * GIB}
    (container / folder / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in entries.items()))
    assert machine.free_memory() == 4 * GIB
    (container / folder / limit).write_text("max\n")
    assert machine.free_memory() == 100 * GIB


def test_an_unknown_machine(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert machine.machine_memory() is None
