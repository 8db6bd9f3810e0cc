"""Searches for changes that make a run fit the memory of its devices without changing its results.

The run is compiled with each change, in the order of their cost: splitting the parameters over all devices, recomputing
more activations, and micro-batches. A run whose `remat` is "auto" recomputes more by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax

from jclip.config import leaves, to_json
from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape, mesh_sizes
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import devices_of
from jclip.train.configuration import Run
from jclip.train.planning.remat import choose_remat
from jclip.train.planning.stage_plan import assemble_shapes, device_bytes

_WORTH = 0.98  # a change is not worth its cost if the step then needs more than this share of what it needed

Proposal = Callable[[Run, set[int]], Run | None]
"""(run, stages that do not fit) -> a run that needs less memory, or None if this change has reached its limit."""


@dataclass(frozen=True)
class Fit:
    """Result of `fit`.

    Attributes:
      memory: memory of one device, bytes.
      needs: bytes of each stage on one device, as configured.
      overrides: command-line options that reduce the memory; empty if everything fits, or if nothing helps.
      then: bytes of each stage on one device, with the overrides.
      dropped: sentence about changes that were given up because a stage could not be compiled with them; "" if there
        are none.
    """

    memory: int
    needs: tuple[int, ...]
    overrides: tuple[str, ...]
    then: tuple[int, ...]
    dropped: str = ""

    @property
    def fits(self) -> bool:
        """True if all stages fit, with the overrides."""
        return max(self.then) <= self.memory


def compiled_need(run: Run, index: int, tokenizer: Tokenizer | None = None, memory: int | None = None) -> int:
    """Returns the bytes of a stage on one device, from the compiler; `tokenizer` and `memory` are as in `plan_stages`.

    Raises JclipError if the run is not valid, or cannot run on these devices.
    """
    part = assemble_shapes(run, index, devices_of(run), tokenizer)
    return device_bytes(choose_remat(part, memory, device_bytes).part)


def fit(
    run: Run,
    memory: int,
    needs: tuple[int, ...],
    need: Callable[[Run, int], int] = compiled_need,
    *,
    devices: int | None = None,
) -> Fit:
    """Returns the first changes with which every stage fits, or those with which the stages need the least memory.

    Only stages that do not fit are compiled again; the others once, at the end. If one of those fails, only
    micro-batches are tried, which change no other stage.

    Args:
      memory: memory of one device, bytes.
      needs: bytes of each stage, from `plan_stages`.
      need: (changed run, index of a stage) -> its bytes.
      devices: number of devices; by default those of this process.
    """
    micro_batches: list[Proposal] = [partial(_micro_batches, index) for index in range(len(needs))]
    split = partial(_split, jax.device_count() if devices is None else devices)
    best, sizes, stale = _search(run, memory, needs, need, [split, _remat, *micro_batches])
    index, dropped = 0, ""
    try:
        for index in sorted(stale):
            sizes[index] = need(best, index)
    except JclipError as error:
        words = " ".join(_overrides(run, best))
        dropped = f"Stage {run.stages[index].name!r} could not be compiled with {words}: {error}"
        best, sizes, _ = _search(run, memory, needs, need, micro_batches)
    return Fit(memory, needs, _overrides(run, best), tuple(sizes.values()), dropped)


def _search(
    run: Run,
    memory: int,
    needs: tuple[int, ...],
    need: Callable[[Run, int], int],
    proposals: Sequence[Proposal],
) -> tuple[Run, dict[int, int], set[int]]:
    """Returns the run with the proposals that help, the bytes of its stages, and the stages whose bytes are stale."""
    best, sizes, stale = run, dict(enumerate(needs)), set[int]()
    for propose in proposals:
        while over := {index for index, size in sizes.items() if size > memory}:
            changed = propose(best, over)
            touched = {index for index in sizes if _differs(best, changed, index)} if changed else set()
            try:
                found = {index: need(changed, index) for index in touched & over} if changed else {}
            except JclipError:  # not possible in this run, or on these devices
                break
            if changed is None or all(size > _WORTH * sizes[index] for index, size in found.items()):
                break
            best, sizes, stale = changed, sizes | found, (stale | touched) - found.keys()
    return best, sizes, stale


def _split(devices: int, run: Run, over: set[int]) -> Run | None:
    sizes = mesh_sizes(run.mesh, devices)
    if sizes["data"] == 1:
        return None
    return replace(run, mesh=MeshShape(data=1, fsdp=sizes["data"] * sizes["fsdp"], tensor=sizes["tensor"]))


def _remat(run: Run, over: set[int]) -> Run | None:
    if run.remat in ("auto", "layers"):
        return None
    return replace(run, remat="dots" if run.remat == "none" else "layers")


def _micro_batches(index: int, run: Run, over: set[int]) -> Run | None:
    if index not in over:
        return None
    stages = list(run.stages)
    stages[index] = replace(stages[index], micro_batches=2 * stages[index].micro_batches)
    return replace(run, stages=tuple(stages))


def _differs(run: Run, changed: Run, index: int) -> bool:
    """Returns True if a change can alter the memory of a stage."""
    return run.stages[index] != changed.stages[index] or run != replace(changed, stages=run.stages)


def _overrides(run: Run, changed: Run) -> tuple[str, ...]:
    before = dict(leaves(to_json(run)))
    return tuple(
        word
        for name, value in leaves(to_json(changed))
        if before[name] != value
        for word in (f"--{name.replace('_', '-')}", str(value))
    )
