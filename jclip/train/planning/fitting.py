"""Searches for changes that make a run fit the memory of its devices without changing its results.

The run is compiled with each change, in the order of their cost: splitting the parameters over all devices, recomputing
more activations, and micro-batches. A run whose `remat` is "auto" recomputes more by itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax

from jclip.config import leaves, to_json
from jclip.data.inspecting.reading import SourceFacts, source_facts
from jclip.errors import JclipError
from jclip.parallel.memory import device_memory
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.replication import Replication
from jclip.tokenizers.text import Tokenizer, load_tokenizer
from jclip.train.assembly import devices_of
from jclip.train.configuration import Run
from jclip.train.planning.plan import StagePlan, assemble_shapes, device_bytes, plan_stages
from jclip.train.planning.remat import choose

_WORTH = 0.98  # changes that leave more than this share of the memory are not worth their cost

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
    """

    memory: int
    needs: tuple[int, ...]
    overrides: tuple[str, ...]
    then: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """True if all stages fit, with the overrides."""
        return max(self.then) <= self.memory


def compiled_need(run: Run, index: int, tokenizer: Tokenizer | None = None, memory: int | None = None) -> int:
    """Returns the bytes of a stage on one device, from the compiler; `tokenizer` and `memory` are as in `plan_stages`.

    Raises JclipError if the run is not valid, or cannot run on these devices.
    """
    part = assemble_shapes(run, index, devices_of(run), tokenizer)
    return device_bytes(choose(part, memory, device_bytes).part)


def fit(run: Run, memory: int, needs: tuple[int, ...], need: Callable[[Run, int], int] = compiled_need) -> Fit:
    """Returns the first changes with which every stage fits, or those with which the stages need the least memory.

    Only stages that do not fit are compiled again; the others once, at the end.

    Args:
      memory: memory of one device, bytes.
      needs: bytes of each stage, from `plan_stages`.
      need: (changed run, index of a stage) -> its bytes.
    """
    best, sizes, stale = run, dict(enumerate(needs)), set[int]()
    micro_batches = (partial(_micro_batches, index) for index in sizes)
    proposals: tuple[Proposal, ...] = (_split, _remat, *micro_batches)
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
    for index in stale:
        sizes[index] = need(best, index)
    return Fit(memory, needs, _overrides(run, best), tuple(sizes.values()))


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run.

    Attributes:
      reads: facts of its sources.
      stages: plan of each stage.
      replication: replicated parameters.
      fit: settings that fit in the memory; None if the memory is unknown.
    """

    reads: tuple[SourceFacts, ...]
    stages: tuple[StagePlan, ...]
    replication: Replication
    fit: Fit | None


def plan(
    run: Run,
    *,
    compiled: bool = True,
    tflops: float | None = None,
    memory: float | None = None,
    progress: Callable[[str], object] = lambda words: None,
) -> RunPlan:
    """Plans a run on this process's devices, as `jclip plan` does, without training.

        found = jclip.train.plan(run, memory=16)
        print([stage.steps for stage in found.stages], found.fit.overrides)

    Raises JclipError if the run cannot start for another reason than missing files, or a figure is not valid.

    Args:
      compiled: compile each stage's step to measure its memory; about ten seconds a stage at full size.
      tflops: sustained rate of one device in TFLOP/s, to estimate the time.
      memory: memory of one device in GiB, for `fit` and `remat`; by default as the device reports. Needs `compiled`.
      progress: receives a description of the current step.
    """
    if memory is not None and not compiled:
        raise JclipError("--memory needs the compiler's figures: omit --no-compile (in Python, compiled=False)")
    if memory is not None and not 0 < memory < math.inf:
        raise JclipError(f"--memory is {memory}; expected a number above 0")
    devices = devices_of(run)
    counts_epochs = any(stage.budget.epochs is not None for stage in run.stages)
    if counts_epochs and not Path(run.tokenizer).is_dir():
        raise JclipError(
            f"there is no tokenizer {run.tokenizer}, to count epochs: set --tokenizer, or budgets in steps"
        )
    tokenizer = load_tokenizer(Path(run.tokenizer)) if counts_epochs else None
    if compiled:
        progress("compiling the stages to measure their memory")
    own = _own_memory() if compiled else None
    limit = int(memory * 2**30) if memory is not None else own if jax.default_backend() != "cpu" else None
    stages = tuple(plan_stages(run, devices, tokenizer, compiled=compiled, tflops=tflops, memory=limit or own))
    found = None
    if limit is not None:
        progress("looking for settings that fit")
        needs = tuple(stage.device_state_bytes + (stage.device_step_bytes or 0) for stage in stages)
        found = fit(run, limit, needs, partial(compiled_need, tokenizer=tokenizer, memory=limit))
    reads = tuple(source_facts(stage.name, source, build=False) for stage in run.stages for source in stage.data)
    return RunPlan(reads, stages, devices.copies, found)


def _own_memory() -> int | None:
    """Returns the bytes of one of this process's devices; None if they are simulated on a CPU for others."""
    simulated = jax.default_backend() == "cpu" and jax.device_count() > 1
    return None if simulated else device_memory()


def _split(run: Run, over: set[int]) -> Run | None:
    sizes = make_mesh(run.mesh).shape
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
    """Returns whether the change can alter the memory of a stage."""
    return run.stages[index] != changed.stages[index] or run != replace(changed, stages=run.stages)


def _overrides(run: Run, changed: Run) -> tuple[str, ...]:
    before = dict(leaves(to_json(run)))
    return tuple(
        word
        for name, value in leaves(to_json(changed))
        if before[name] != value
        for word in (f"--{name.replace('_', '-')}", str(value))
    )
