"""Facts about this machine."""

import os
from contextlib import suppress
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
_USED = "/sys/fs/cgroup/memory.current"


def machine_memory() -> int | None:
    """Returns the bytes of this machine's memory, or the limit of its container if that is less; None if unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limits = (_number_in(file) for file in _LIMITS)
    return min([memory, *(limit for limit in limits if limit is not None)])


def free_memory() -> int:
    """Returns the free bytes of this machine, or of its container if that has fewer."""
    free = [_machine_free()]
    limit, used = _number_in(_LIMITS[0]), _number_in(_USED)
    if limit is not None and used is not None:
        free.append(limit - used)
    return max(min(free), 2**28)


def _number_in(file: str) -> int | None:
    """Returns the number in a file; None if there is no container, or one without a limit ("max")."""
    try:
        return int(Path(file).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _machine_free() -> int:
    with suppress(OSError, ValueError):  # not Linux
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    memory = machine_memory()
    return 4 * 2**30 if memory is None else memory // 2
