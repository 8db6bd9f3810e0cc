"""Memory of devices."""

import jax

from jclip.io.machine import machine_memory
from jclip.parallel.processes import gather

_CPU_SHARE = 0.75  # of the machine's memory; data, checkpoints and the system need the rest


def device_memory() -> int | None:
    """Returns the bytes that programs may use on one of this process's devices; None if it does not say.

    A CPU's devices share three quarters of the machine's memory.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        memory = machine_memory()
        return None if memory is None else int(_CPU_SHARE * memory) // jax.local_device_count()
    limit: int | None = (device.memory_stats() or {}).get("bytes_limit")
    return limit


def have_own_memory(mesh: jax.sharding.Mesh) -> bool:
    """Returns whether the devices of a mesh have a memory apart from their host's, as TPUs and GPUs do."""
    return bool(mesh.devices.flat[0].platform != "cpu")


def least_device_memory() -> int | None:
    """Returns the smallest `device_memory` of all processes, which exchange it; None if one process does not know."""
    found = gather(device_memory() or 0)
    return min(found) or None
