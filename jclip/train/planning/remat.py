"""Choice of the activations that the backward pass recomputes, in runs whose `remat` is "auto"."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jclip.models.compute import Remat
from jclip.parallel.sharding import batch_devices, bytes_per_device
from jclip.train.assembly import StageParts
from jclip.train.configuration import RematChoice
from jclip.units import format_size

STEP_SHARE = 0.95
"""Share of a device's memory that a step may need if `remat` is "auto". Prefetched batches and evaluations need the
rest."""
_SAFETY = 4  # a step with an estimate below a fourth of the memory is not compiled to measure it


@dataclass(frozen=True)
class ChosenRemat:
    """Recomputation of a stage, chosen or given.

    Attributes:
      part: the stage, assembled with it.
      reason: reason for it, such as "about 2 GiB of 76 GiB are needed"; "" if nothing was chosen.
    """

    part: StageParts
    reason: str = ""

    @property
    def remat(self) -> RematChoice:
        """Activations that are recomputed; "auto" if the run leaves the choice and nothing was chosen."""
        return self.part.remat if self.reason else self.part.run.remat


def least_recomputation(part: StageParts) -> Remat:
    """Returns the least recomputation that helps the speed: "dots" on CPUs, "none" on accelerators.

    A CPU computes norms and activations again in less time than it takes to store them in new memory
    (benchmarks/RESULTS.md, "A training step on a CPU").
    """
    return "none" if part.devices.own_memory else "dots"


def choose_remat(part: StageParts, memory: int | None, measure: Callable[[StageParts], int]) -> ChosenRemat:
    """Returns a stage with the least recomputation that fits, if its run leaves the choice ("auto").

    A step fits if it needs at most STEP_SHARE of the memory; if none does, the choice is "layers". The least is
    `least_recomputation`. The same stage on devices with the same memory gives the same choice. A step is
    not compiled if an estimate from its shapes is far below the memory, so that short runs do not wait. Otherwise it is
    compiled and measured, and `StageParts.program_for` keeps the program.

    Args:
      part: the stage, as `assemble` returns it.
      memory: bytes of one device; None if unknown, and then the choice is "dots".
      measure: returns the bytes of a stage's step on one device, such as `device_bytes`.
    """
    if part.run.remat != "auto":
        return ChosenRemat(part)
    if memory is None:
        return ChosenRemat(part.with_remat("dots"), "the devices do not report their memory")
    estimated = _estimate(part)
    least = least_recomputation(part)
    if _SAFETY * estimated <= memory:
        return ChosenRemat(
            part.with_remat(least), f"about {format_size(estimated)} of {format_size(memory)} are needed"
        )
    tried: list[str] = []
    words: tuple[Remat, ...] = ("dots",) if least == "dots" else ("none", "dots")
    for word in words:
        changed = part.with_remat(word)
        need = _measured(changed, measure)
        if need is not None and need <= STEP_SHARE * memory:
            needed = f"{format_size(need)} of {format_size(memory)} are needed"
            return ChosenRemat(changed, "; ".join((needed, *tried)))
        tried.append(f'with remat "{word}" it needs {"too much" if need is None else format_size(need)}')
    return ChosenRemat(part.with_remat("layers"), f"{'; '.join(tried)}; a device has {format_size(memory)}")


def _measured(part: StageParts, measure: Callable[[StageParts], int]) -> int | None:
    """Returns the bytes of a stage's step; None if the compiler refuses it because it needs too much."""
    try:
        return measure(part)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _estimate(part: StageParts) -> int:
    """Returns the approximate bytes of a stage's step on one device: state, gradients, and all activations.

    Images are the inputs of rank 4, and tokens the integers of rank 2. Cached features are floats.
    """
    taken, model = part.taken, part.run.model
    state = bytes_per_device(taken, jax.tree.map(lambda leaf: leaf.sharding, taken))
    rows = -(-part.stage.batch_size // batch_devices(part.mesh))
    wide = jnp.dtype(part.run.dtype).itemsize / 2
    activations = 0.0
    for each in part.program.batch.values():
        if len(each.shape) == 4:
            activations += model.image.activation_bytes
        elif len(each.shape) == 2 and jnp.issubdtype(each.dtype, jnp.integer):
            activations += model.text.activation_bytes(each.shape[1])
    return int(2 * state + rows * wide * activations)
