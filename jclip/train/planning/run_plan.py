"""Plans a run: what it reads, its stages, their memory, and settings that fit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

from jclip.data.inspecting.reading import SourceFacts, source_facts
from jclip.errors import JclipError
from jclip.parallel.replication import Replication
from jclip.tokenizers.text import load_tokenizer
from jclip.train.assembly import devices_of
from jclip.train.configuration import Run
from jclip.train.planning.fitting import Fit, compiled_need, fit
from jclip.train.planning.plan import StagePlan, plan_stages


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run.

    Attributes:
      reads: facts of each source of each stage.
      stages: plan of each stage.
      sharding: parameters that the mesh replicates.
      fit: settings with which the stages fit into the memory; None if the memory is unknown.
    """

    reads: tuple[SourceFacts, ...]
    stages: tuple[StagePlan, ...]
    sharding: Replication
    fit: Fit | None


def plan(
    run: Run,
    *,
    compiled: bool = True,
    tflops: float | None = None,
    memory: int | None = None,
    progress: Callable[[str], object] = lambda words: None,
) -> RunPlan:
    """Plans a run on this process's devices, as `jclip plan` does, without training.

        found = jclip.train.plan(run, memory=16 * 2**30)
        print([stage.steps for stage in found.stages], found.fit.overrides)

    Args:
      run: the configuration.
      compiled: compile each stage's step to measure its memory; about ten seconds a stage at full size.
      tflops: sustained rate of one device in TFLOP/s, to estimate the time.
      memory: memory of one device, bytes, for `fit`; by default as the device reports. Needs `compiled`.
      progress: receives a description of the current step.

    Raises:
      JclipError: the run cannot start for another reason than missing files, except those that a budget in epochs
        needs; or a figure is not valid.
    """
    if memory is not None and not compiled:
        raise JclipError("--memory needs the compiler's figures: omit --no-compile (in Python, compiled=False)")
    devices = devices_of(run)
    counts_epochs = any(stage.budget.epochs is not None for stage in run.stages)
    if counts_epochs and not Path(run.tokenizer).is_dir():
        raise JclipError(
            f"a budget in epochs needs the data and the tokenizer {run.tokenizer}, which does not exist: set "
            "--tokenizer, or the budgets in steps"
        )
    tokenizer = load_tokenizer(Path(run.tokenizer)) if counts_epochs else None
    progress("compiling the stages to measure their memory")
    stages = tuple(plan_stages(run, devices, tokenizer, compiled=compiled, tflops=tflops))
    memory = _device_memory() if memory is None and compiled else memory
    found = None
    if memory is not None:
        progress("looking for settings that fit")
        needs = tuple(stage.device_state_bytes + (stage.device_step_bytes or 0) for stage in stages)
        found = fit(run, memory, needs, partial(compiled_need, tokenizer=tokenizer))
    reads = tuple(source_facts(stage.name, source, build=False) for stage in run.stages for source in stage.data)
    return RunPlan(reads, stages, devices.copies, found)


def _device_memory() -> int | None:
    """Returns the memory of a device in bytes; None if it is unknown, or a CPU's."""
    device = jax.local_devices()[0]
    return (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
