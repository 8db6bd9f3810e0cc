"""Runs a few steps of each stage on the attached devices, on random inputs, for a plan."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jclip.errors import JclipError, first_line
from jclip.train.assembly import StageParts

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


def measure(part: StageParts) -> Measured:
    """Runs an assembled stage's step on random parameters and inputs. Reads no files.

    Raises JclipError if the devices have too little memory.
    """
    mesh = part.mesh
    key = jax.random.key(0)
    try:
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
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise JclipError(f"stage {part.stage.name!r} does not fit the attached devices: {first_line(error)}") from None
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
