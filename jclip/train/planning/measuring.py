"""Runs a few steps of each stage on the attached devices, on random inputs, for a plan."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jclip.errors import JclipError
from jclip.train.assembly import StageParts
from jclip.train.planning.stage_plan import device_bytes
from jclip.units import format_size

STEPS = 3
"""Number of steps that are timed, after one that is not."""


@dataclass(frozen=True)
class Measured:
    """Step of a stage, measured on the attached devices.

    Attributes:
      devices: number of devices.
      kind: their kind: "NVIDIA H100 80GB HBM3", "cpu".
      seconds: median duration of a step.
      peak: largest number of bytes in use on a device since this process started; None if the device does not say.
    """

    devices: int
    kind: str
    seconds: float
    peak: int | None


def measure(part: StageParts, memory: int | None = None) -> Measured:
    """Compiles an assembled stage's step, and runs it on random parameters and inputs. Reads no files.

    `memory` is that of one device in bytes; None if unknown. Raises JclipError, before anything is run, if the step
    needs more. A system may otherwise kill the process.
    """
    mesh = part.mesh
    key = jax.random.key(0)
    if memory is not None and (need := device_bytes(part)) > memory:
        raise JclipError(
            f"stage {part.stage.name!r} needs {format_size(need)} on each attached device, and a program may use "
            f"{format_size(memory)}: lower the batch size, or measure on other devices"
        )
    with jax.set_mesh(mesh):
        state = _random(part.taken)
        constants, batch = _random(part.program.constants), _random(part.program.batch)
        step = part.program_for(state, constants, batch, key)
        times = []
        for _ in range(1 + STEPS):
            begun = time.perf_counter()
            state, metrics = step(state, constants, batch, key)
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - begun)
    device = mesh.devices.flat[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return Measured(mesh.size, device.device_kind, statistics.median(times[1:]), peak)


def _random(shapes: Any) -> Any:
    """Returns arrays of these shapes and shardings: small random numbers, and zeros of dtypes that are not floats."""

    def fill() -> Any:
        leaves, tree = jax.tree.flatten(shapes)
        keys = jax.random.split(jax.random.key(0), len(leaves) or 1)
        arrays = [
            0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=False)
        ]
        return jax.tree.unflatten(tree, arrays)

    return jax.jit(fill, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes))()
