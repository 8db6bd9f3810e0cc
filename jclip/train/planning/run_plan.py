"""Plans a run: on this process's devices, or on a target's, by its own compiler."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax

from jclip.accelerators.compiler_process import SECONDS
from jclip.accelerators.targets import Place, parse_place
from jclip.data.inspecting.reading import SourceFacts, source_facts
from jclip.errors import JclipError, first_line
from jclip.parallel.memory import device_memory, least_device_memory
from jclip.parallel.mesh import MeshShape
from jclip.parallel.replication import Replication
from jclip.stages import Budget
from jclip.tokenizers.text import Tokenizer, load_tokenizer
from jclip.train.assembly import devices_of
from jclip.train.configuration import Run
from jclip.train.planning.fitting import Fit, compiled_need, fit
from jclip.train.planning.measuring import Measured, measure
from jclip.train.planning.on_target import StageOnTarget, plan_on
from jclip.train.planning.remat import choose_remat
from jclip.train.planning.stage_plan import StagePlan, assemble_shapes, device_bytes, plan_stages


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run.

    Attributes:
      reads: facts of its sources.
      stages: plan of each stage.
      replication: replicated parameters.
      fit: options with which the run fits the memory; None if the memory is unknown, or everything fits the target.
      place: devices of the target; None if the plan is for this process's devices.
      on: each stage's step on the target; empty for this process's devices.
      measured: each stage's step, measured on the attached devices; empty if nothing was measured.
      not_measured: sentence about the error that ended the measurement; "" if none did.
    """

    reads: tuple[SourceFacts, ...]
    stages: tuple[StagePlan, ...]
    replication: Replication
    fit: Fit | None
    place: Place | None = None
    on: tuple[StageOnTarget, ...] = ()
    measured: tuple[Measured, ...] = ()
    not_measured: str = ""


def plan(
    run: Run,
    *,
    on: str | None = None,
    compiled: bool = True,
    tflops: float | None = None,
    memory: float | None = None,
    largest_batch: bool = True,
    seconds: float = SECONDS,
    measured: bool = False,
    progress: Callable[[str], object] = lambda words: None,
) -> RunPlan:
    """Plans a run on this process's devices or for a target's, as `jclip plan` does, without training.

        found = jclip.train.plan(run, memory=16)
        print([stage.steps for stage in found.stages], found.fit.overrides)
        found = jclip.train.plan(run, on="v5e:8x8")
        print([stage.headroom for stage in found.on])

    Args:
      on: devices that need not be attached, such as "v5e:8x8" or "h100:4x8". Their own compiler compiles the stages.
      compiled: compile each stage's step to measure its memory; about ten seconds a stage at full size.
      tflops: sustained rate of one device in TFLOP/s, to estimate the time.
      memory: memory of one device in GiB, for `fit` and `remat`; by default as the device reports. Needs `compiled`.
      largest_batch: look for the largest batch that fits on the target; at most five more compilations a stage.
      seconds: time limit of one compilation for the target.
      measured: also run a few steps of each stage on the attached devices, on random inputs. If they fail, the plan has
        the reason in `not_measured`.
      progress: receives a description of the current step.

    Raises:
      JclipError: the run cannot start for another reason than missing files, a figure is not valid, or options
        contradict each other.
      MissingExtra: the target's compiler is not installed.
      CompilerFailed: the target's compiler crashed, or exceeded a limit.
    """
    place = None if on is None else parse_place(on)
    if place is not None:
        given = {"--memory": memory is not None, "--tflops": tflops is not None, "--no-compile": not compiled}
        for option in (name for name, is_given in given.items() if is_given):
            raise JclipError(f"--on compiles for {on} and knows its memory and rates: omit {option}")
    else:
        given = {"--no-largest-batch": not largest_batch, "--minutes": seconds != SECONDS}
        for option in (name for name, is_given in given.items() if is_given):
            raise JclipError(f"{option} is for a target's compiler: omit it, or add --on")
    if memory is not None and not compiled:
        raise JclipError("--memory needs the compiler's figures: omit --no-compile (in Python, compiled=False)")
    if memory is not None and not 0 < memory < math.inf:
        raise JclipError(f"--memory is {memory}; expected a number above 0")
    if not 0 < seconds < math.inf:
        raise JclipError(f"the time limit is {seconds:g} s; expected a number above 0 (--minutes)")
    tokenizer = _tokenizer(run)
    if place is not None:
        if measured:
            _check_attached(run)
        run = _in_steps(run, tokenizer)
        on_target = plan_on(run, place, largest=largest_batch, seconds=seconds, progress=progress)
        found = RunPlan(_reads(run), on_target.stages, on_target.replication, on_target.fit, place, on_target.steps)
    else:
        found = _plan_attached(run, tokenizer, compiled, tflops, memory, progress)
    if measured:
        progress("measuring steps on the attached devices")
        try:
            found = replace(found, measured=_measured(run, found.stages, tokenizer))
        except JclipError as error:
            found = replace(found, not_measured=str(error))
    return found


def _check_attached(run: Run) -> None:
    """Raises JclipError unless the attached devices can run what is planned for others."""
    try:
        devices_of(run)
    except JclipError as error:
        raise JclipError(f"--measure needs a run that suits the attached devices, or omit it: {error}") from None


def _measured(run: Run, stages: Sequence[StagePlan], tokenizer: Tokenizer | None) -> tuple[Measured, ...]:
    """Measures the planned stages with the plan's `remat`, or with `jclip train`'s choice if the plan has none.

    Raises JclipError if a stage needs too much memory, or fails.
    """
    devices, memory, found = devices_of(run), least_device_memory(), list[Measured]()
    for index, stage in enumerate(stages):
        part = assemble_shapes(replace(run, remat=stage.remat), index, devices, tokenizer)
        try:
            found.append(measure(choose_remat(part, memory, device_bytes).part, memory))
        except jax.errors.JaxRuntimeError as error:
            raise JclipError(f"stage {stage.name!r} fails on the attached devices: {first_line(error)}") from None
    return tuple(found)


def _plan_attached(
    run: Run,
    tokenizer: Tokenizer | None,
    compiled: bool,
    tflops: float | None,
    memory: float | None,
    progress: Callable[[str], object],
) -> RunPlan:
    """Plans a run on this process's devices."""
    devices = devices_of(run)
    if compiled:
        progress("compiling the stages to measure their memory")
    own = _own_memory() if compiled else None
    limit = int(memory * 2**30) if memory is not None else own if jax.default_backend() != "cpu" else None
    stages = tuple(plan_stages(run, devices, tokenizer, compiled=compiled, tflops=tflops, memory=limit or own))
    found = None
    if limit is not None:
        progress("searching for settings that fit")
        needs = tuple(stage.device_state_bytes + (stage.device_step_bytes or 0) for stage in stages)
        found = fit(run, limit, needs, partial(compiled_need, tokenizer=tokenizer, memory=limit))
    return RunPlan(_reads(run), stages, devices.copies, found)


def _own_memory() -> int | None:
    """Returns the bytes of one of this process's devices; None if a CPU simulates the devices."""
    simulated = jax.default_backend() == "cpu" and jax.device_count() > 1
    return None if simulated else device_memory()


def _tokenizer(run: Run) -> Tokenizer | None:
    """Returns the run's tokenizer if a budget counts epochs, otherwise None. Raises JclipError if it is missing."""
    if all(stage.budget.epochs is None for stage in run.stages):
        return None
    if not Path(run.tokenizer).is_dir():
        raise JclipError(
            f"there is no tokenizer {run.tokenizer}, to count epochs: set --tokenizer, or budgets in steps"
        )
    return load_tokenizer(Path(run.tokenizer))


def _in_steps(run: Run, tokenizer: Tokenizer | None) -> Run:
    """Returns the run with budgets in steps instead of epochs. Opens the data to count them."""
    if tokenizer is None:
        return run
    alone = replace(run, mesh=MeshShape())
    devices = devices_of(alone, jax.local_devices()[:1])
    stages = tuple(
        replace(stage, budget=Budget(steps=assemble_shapes(alone, index, devices, tokenizer).steps))
        if stage.budget.epochs is not None
        else stage
        for index, stage in enumerate(run.stages)
    )
    return replace(run, stages=stages)


def _reads(run: Run) -> tuple[SourceFacts, ...]:
    return tuple(source_facts(stage.name, source, build=False) for stage in run.stages for source in stage.data)
