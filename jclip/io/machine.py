"""Facts about this machine."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class _Container(NamedTuple):
    """Files of one version of Linux's control groups, as a container sees its own.

    Attributes:
      folder: their folder.
      limit, used: files with the limit and the use of memory, bytes.
      cache: entries of memory.stat with the bytes of cached files, which count as used and which the system frees.
    """

    folder: str
    limit: str
    used: str
    cache: tuple[str, ...]


_CONTAINERS = (
    _Container("/sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    _Container(
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


def machine_memory() -> int | None:
    """Returns the bytes of this machine's memory, or the limit of its container if that is less; None if unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limits = (_number_in(Path(each.folder, each.limit)) for each in _CONTAINERS)
    return min([memory, *(limit for limit in limits if limit is not None)])


def free_memory() -> int:
    """Returns the free bytes of this machine, or of its container if that has fewer. Cached files count as free."""
    free = [_machine_free()]
    for each in _CONTAINERS:
        limit, used = (_number_in(Path(each.folder, name)) for name in (each.limit, each.used))
        if limit is not None and used is not None:
            free.append(limit - used + _cached(each))
    return max(min(free), 2**28)


def _number_in(file: Path) -> int | None:
    """Returns the number in a file; None if there is no container, or one without a limit ("max")."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cached(container: _Container) -> int:
    """Returns the bytes of a container's cached files; 0 if it does not say."""
    with suppress(OSError, ValueError):
        lines = Path(container.folder, "memory.stat").read_text(encoding="ascii").splitlines()
        return sum(int(number) for name, number in map(str.split, lines) if name in container.cache)
    return 0


def _machine_free() -> int:
    with suppress(OSError, ValueError):  # not Linux
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    memory = machine_memory()
    return 4 * 2**30 if memory is None else memory // 2
