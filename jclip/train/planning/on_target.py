"""Plans a run on devices that are not here, by their own compiler: memory, communication and estimated time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from jclip.accelerators.account import Account, Communication, account
from jclip.accelerators.compiler import Compiled, Compiler
from jclip.accelerators.compiler_process import SECONDS, CompilerProcess
from jclip.accelerators.roofline import Estimate, estimate
from jclip.accelerators.targets import Place
from jclip.errors import JclipError
from jclip.parallel.replication import Replication
from jclip.parallel.sharding import batch_devices
from jclip.train.assembly import Devices, StageParts, assemble, devices_of
from jclip.train.configuration import Run
from jclip.train.planning.fitting import Fit, fit
from jclip.train.planning.largest_batch import Batches, largest_batch
from jclip.train.planning.remat import STEP_SHARE, ChosenRemat, choose_remat
from jclip.train.planning.stage_plan import StagePlan, argument_bytes, lower_step, plan_stage, whole_state_bytes

Progress = Callable[[str], object]


@dataclass(frozen=True)
class StageOnTarget:
    """Step of a stage, compiled for the devices of a place; all bytes and FLOPs are those of one device.

    Attributes:
      needed: bytes that the step needs, state included.
      available: bytes that it may use.
      state: bytes of parameters and optimizer slots.
      products: FLOPs of the step's matmuls and convolutions; None if the compiler refuses a step that does not fit, or
        if its program cannot be read.
      communication: number and bytes of collectives by kind; None as above.
      estimate: estimated time of the step; None as above.
      unknown: sentences about what the account leaves out.
      largest_batch: largest global batch that was found to fit; None if it was not asked for, or if none was found.
      too_large_batch: smallest global batch that was found not to fit; None as above.
      search_failed: sentence about the error that ended the search for the largest batch; "" if none did.
      compile_seconds: duration of the compilation.
    """

    needed: int
    available: int
    state: int
    products: int | None
    communication: dict[str, Communication] | None
    estimate: Estimate | None
    unknown: tuple[str, ...]
    largest_batch: int | None
    too_large_batch: int | None
    search_failed: str
    compile_seconds: float

    @property
    def headroom(self) -> int:
        """Bytes that are left; negative if the step does not fit."""
        return self.available - self.needed

    @property
    def refused(self) -> bool:
        """True if the compiler refuses the step because it does not fit."""
        return self.products is None and not self.unknown


@dataclass(frozen=True)
class Assembled:
    """Stage as the compiler's process has planned and compiled it."""

    plan: StagePlan
    replication: Replication
    parts: int  # into which the mesh splits a batch
    compiled: Compiled


class TargetPlan(NamedTuple):
    """Plan of a run on a target's devices.

    Attributes:
      stages: plan of each stage.
      replication: replicated parameters.
      fit: changes with which the run fits; None if it fits as it is.
      steps: each stage's compiled step.
    """

    stages: tuple[StagePlan, ...]
    replication: Replication
    fit: Fit | None
    steps: tuple[StageOnTarget, ...]


def plan_on(
    run: Run,
    place: Place,
    *,
    largest: bool = True,
    seconds: float = SECONDS,
    progress: Progress = lambda words: None,
) -> TargetPlan:
    """Plans a run, whose budgets are in steps or examples, on the devices of a place.

    Args:
      largest: look for the largest batch of each stage that fits with the same `remat`. It takes at most five more
        compilations. In a run with "auto", a step that needs more than STEP_SHARE of the memory does not fit, unless
        its `remat` is "layers".
      seconds: time limit of one compilation.
      progress: receives a description of the current step.

    Raises:
      JclipError: the run is not valid, or cannot run on these devices.
      MissingExtra: the compiler is not installed.
      CompilerFailed: the compiler crashed, refuses the program, or exceeded a limit.
    """
    doing = wanted = ""

    def tell(words: str) -> None:
        progress(f"{place.name}: {doing}: {words}")

    more = "allow more (jclip plan --minutes)"
    with CompilerProcess(place, seconds=seconds, more_time=more, progress=tell) as process:

        def need(changed: Run, index: int) -> int:
            nonlocal doing
            stage = changed.stages[index]
            doing = f"looking for {wanted}: stage {index + 1} ({stage.name}), batch of {stage.batch_size:,}"
            found: Compiled = process.call(compile_stage, changed, index)
            return found.needed

        stages, found = list[Assembled](), list[StageOnTarget]()
        for index, stage in enumerate(run.stages):
            doing = f"stage {index + 1} of {len(run.stages)} ({stage.name})"
            tell("loading the compiler")
            stages.append(process.call(assemble_stage, run, index))
        for index, each in enumerate(stages):
            wanted = "the largest batch"
            batches, failed = _largest_batch(run, index, each, need) if largest else (Batches(None, None), "")
            found.append(_on_target(each, place, batches, failed))
        fits = None
        if not all(each.compiled.fits for each in stages):
            wanted = "changes that fit"
            needs = tuple(each.compiled.needed for each in stages)
            fits = fit(run, place.target.memory, needs, need, devices=place.devices)
    return TargetPlan(tuple(each.plan for each in stages), stages[0].replication, fits, tuple(found))


def assemble_stage(compiler: Compiler, run: Run, index: int) -> Assembled:
    """Plans and compiles a stage, in the compiler's process."""
    devices = devices_of(run, compiler.devices)
    choice = _chosen(compiler, run, index, devices)
    part = choice.part
    return Assembled(plan_stage(choice), devices.copies, batch_devices(part.mesh), compile_part(compiler, part))


def compile_stage(compiler: Compiler, run: Run, index: int) -> Compiled:
    """Compiles a stage, in the compiler's process. The result has no text, only memory."""
    choice = _chosen(compiler, run, index, devices_of(run, compiler.devices))
    return replace(compile_part(compiler, choice.part), text="")


def _chosen(compiler: Compiler, run: Run, index: int, devices: Devices) -> ChosenRemat:
    """Returns a stage with the least recomputation that fits, as far as the run leaves the choice."""

    def needed(part: StageParts) -> int:
        return compile_part(compiler, part).needed  # kept, so that the chosen one is not compiled again

    return choose_remat(assemble(run, index, devices), compiler.place.target.memory, needed)


def compile_part(compiler: Compiler, part: StageParts) -> Compiled:
    """Compiles a step. What it needs includes arguments that it does not use, which are on the devices all the same.

    If saving the state needs more, that counts, as in `device_bytes`.
    """
    found = compiler.compile(lower_step(part), f"compiling with remat {part.remat}")
    unused = max(argument_bytes(part) - found.arguments, 0) if found.arguments else 0
    return replace(found, needed=max(found.needed + unused, whole_state_bytes(part)))


def _largest_batch(run: Run, index: int, stage: Assembled, need: Callable[[Run, int], int]) -> tuple[Batches, str]:
    """Returns the largest batch of a stage that fits, and `StageOnTarget.search_failed`."""
    configured, remat, failed = run.stages[index], stage.plan.remat, ""
    step = stage.parts * configured.micro_batches
    # Above this share, a run with "auto" recomputes more.
    share = STEP_SHARE if run.remat == "auto" and remat != "layers" else 1.0

    def needed(batch: int) -> int | None:
        nonlocal failed
        stages = list(run.stages)
        stages[index] = replace(configured, batch_size=batch)
        try:
            return need(replace(run, stages=tuple(stages), remat=remat), index)
        except JclipError as error:  # the compiler crashes or exceeds a limit, or the run cannot have this batch
            failed = f"{configured.name}: the search for the largest batch ended at {batch:,}: {error}"
            return None

    memory = int(share * stage.compiled.available)
    batches = largest_batch(needed, configured.batch_size, stage.compiled.needed, step, memory)
    return batches, failed


def _on_target(stage: Assembled, place: Place, batches: Batches, search_failed: str) -> StageOnTarget:
    compiled = stage.compiled
    counted, unknown = _account(compiled.text)
    return StageOnTarget(
        needed=compiled.needed,
        available=compiled.available,
        state=stage.plan.device_state_bytes,
        products=counted.products if counted else None,
        communication=counted.by_kind() if counted else None,
        estimate=estimate(counted, place) if counted else None,
        unknown=unknown,
        largest_batch=batches.fits,
        too_large_batch=batches.too_large,
        search_failed=search_failed,
        compile_seconds=compiled.seconds,
    )


def _account(text: str) -> tuple[Account | None, tuple[str, ...]]:
    """Returns the account of a program, and sentences about what it leaves out; None for a program without text."""
    if not text:
        return None, ()
    try:
        counted = account(text)
    except JclipError as error:
        return None, (str(error),)
    return counted, counted.unknown
