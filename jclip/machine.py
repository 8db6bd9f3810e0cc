"""Facts about this machine."""

import os
from contextlib import suppress
from pathlib import Path


def free_memory() -> int:
    """Returns the free bytes of the machine, or of its container if those are fewer."""
    free = [_machine_free()]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        free.append(int(limit.read_text(encoding="utf-8")) - int(used.read_text(encoding="utf-8")))
    return max(min(free), 2**28)


def _machine_free() -> int:
    with suppress(OSError, ValueError):  # not Linux
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * 2**30
