"""`jclip plan CONFIG`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import jax
import tyro
from rich.table import Table
from rich.text import Text

from jclip.accelerators.compiler_process import SECONDS
from jclip.accelerators.targets import parse_place
from jclip.cli.configs import parse
from jclip.cli.plan_target import as_record, list_targets, show_measured, show_target
from jclip.configs.figures import published
from jclip.console import Console, text
from jclip.errors import JclipError
from jclip.parallel.replication import Replication
from jclip.plain import print_json
from jclip.train.configuration import Run
from jclip.train.planning.fitting import Fit
from jclip.train.planning.remat import STEP_SHARE
from jclip.train.planning.run_plan import RunPlan, plan
from jclip.train.planning.stage_plan import StagePlan
from jclip.units import format_duration, format_flops, format_size


@dataclass(frozen=True)
class PlanOptions:
    """Prints the stages of CONFIG, without training: trained and frozen parameters, arithmetic, memory, time.

    Attributes:
      config: a recipe's name (`jclip configs` lists them) or a Python file with a function config().
      reduced: plan the reduced run of `jclip train CONFIG --reduced`.
      devices: number of devices, simulated on this machine's CPU; by default this machine's own devices.
      tflops: sustained TFLOP/s of one device, to estimate the time; usually a third to a half of its peak.
      compile: compile each stage's step to measure its memory; about ten seconds a stage at full size.
      memory: memory of one device in GiB, to check that each stage fits; by default as the device reports.
      on: compile for devices that need not be attached, by their compiler: v5e:8x8, h100:8, or h100:4x8 for 4 hosts.
      targets: list the devices for --on, with their figures; takes no CONFIG.
      largest_batch: with --on, look for the largest batch that fits; takes at most five more compilations a stage.
      minutes: with --on, time limit of one compilation.
      measure: also run a few steps of each stage on the attached devices, on random inputs.
      json: print JSON.
    """

    config: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="CONFIG")]]
    reduced: bool = False
    devices: int | None = None
    tflops: float | None = None
    compile: bool = True
    memory: float | None = None
    on: str | None = None
    targets: bool = False
    largest_batch: bool = True
    minutes: float = SECONDS / 60
    measure: bool = False
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    if "--targets" in arguments:
        return list_targets(arguments)
    options, run = parse(PlanOptions, arguments, "plan", _prepare)
    with Console(stderr=True, quiet=options.json).working("planning") as progress:
        found = plan(
            run,
            on=options.on,
            compiled=options.compile,
            tflops=options.tflops,
            memory=options.memory,
            largest_batch=options.largest_batch,
            seconds=60 * options.minutes,
            measured=options.measure,
            progress=progress,
        )
    figures = None if options.reduced else published().get(run.name)
    if options.json:
        record = {"run": run.name, **as_record(found), "published": figures}
        print_json(record, default=dataclasses.asdict, indent=2)
    else:
        for one in found.reads:
            Console().tell(str(one))
        _show(run, found, Console())
        if found.replication.devices > 1:
            _show_replicated(found.replication, Console())
        if figures:
            Console().tell(f"Published for this recipe, in percent: {figures}.")
    if found.not_measured:
        raise JclipError(f"not measured: {found.not_measured}")
    return 0


def _show(run: Run, found: RunPlan, console: Console) -> None:
    plans, fits = found.stages, found.fit
    table = Table(title=text(f"{run.name}: stages"), title_justify="left")
    rows: dict[str, list[str | Text]] = {
        "objective": [p.objective for p in plans],
        "batch (pairs)": [f"{p.batch_size:,}" for p in plans],
        "steps": [f"{p.steps:,}" for p in plans],
        "pairs seen": [f"{p.pairs:,}" for p in plans],
        "peak learning rate": [f"{p.learning_rate:g}" for p in plans],
        "parameters trained": [f"{p.trainable:,}" for p in plans],
        "parameters frozen": [f"{p.frozen:,}" for p in plans],
        "FLOPs per step": [format_flops(p.flops_per_step) for p in plans],
        "total FLOPs": [format_flops(p.flops) for p in plans],
        "parameters and optimizer state": [format_size(p.state_bytes) for p in plans],
        "devices": [f"{p.devices}" for p in plans],
        "parameters and state, per device": [format_size(p.device_state_bytes) for p in plans],
    }
    if any(p.host_bytes for p in plans):
        rows["frozen, in the hosts' memory"] = [format_size(p.host_bytes) for p in plans]
    rows["recomputed (remat)"] = [_remat(run, p) for p in plans]
    if all(p.device_step_bytes is not None for p in plans):
        rows["a step's other memory, per device"] = [format_size(p.device_step_bytes or 0) for p in plans]
    if fits and not found.place:
        rows[f"fits {format_size(fits.memory)}"] = [
            text("yes", "green") if need <= fits.memory else text(f"{format_size(need - fits.memory)} too much", "red")
            for need in fits.needs
        ]
    if all(p.seconds is not None for p in plans):
        rows["time per step"] = [format_duration(p.step_seconds or 0) for p in plans]
        rows["total time"] = [format_duration(p.seconds or 0) for p in plans]
    table.add_column("")
    for number, stage in enumerate(plans, 1):
        table.add_column(text(f"{number} {stage.name}"), justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    if found.place:
        show_target(run.name, found.place, plans, found.on)
    if found.measured:
        show_measured(found)
    if fits and max(fits.needs) > fits.memory:
        console.print(remedy(fits), soft_wrap=True)
    for stage in plans:
        if run.remat == "auto" != stage.remat:
            console.tell(f"{stage.name}: remat {stage.remat}: {stage.remat_reason}.")
    if run.remat == "auto" and any(step.largest_batch or step.too_large_batch for step in found.on):
        console.tell(
            f"The largest batch is with the same remat: above {STEP_SHARE:.0%} of the memory, a run recomputes more."
        )
    if not found.place:
        console.tell(_note(plans))
    for number, stage in enumerate(plans, 1):
        groups = Table(title=text(f"{number} {stage.name}: trained parameters"), title_justify="left")
        groups.add_column("parameters")
        groups.add_column("count", justify="right")
        groups.add_column("")
        for paths, count, trains in stage.groups:
            groups.add_row(text(paths), f"{count:,}", text("trains", "green") if trains else text("frozen", "dim"))
        console.print(groups)


def _remat(run: Run, stage: StagePlan) -> str:
    """Returns the stage's `remat`, and whether the run left the choice."""
    return f"{stage.remat} (auto)" if run.remat == "auto" != stage.remat else stage.remat


def _show_replicated(copies: Replication, console: Console) -> None:
    console.tell(f"Parameters over {copies}")
    if copies.parts:
        table = Table(title="replicated parameters", title_justify="left")
        table.add_column("parameters")
        table.add_column("size", justify="right")
        table.add_column("copies", justify="right")
        for paths, size, count in copies.parts:
            table.add_row(text(paths), format_size(size), f"{count}")
        console.print(table)


def remedy(fits: Fit) -> str:
    """Returns the sentence with the options that make the run fit, or that come closest."""
    words = " ".join(fits.overrides)
    least = ", ".join(format_size(size) for size in fits.then)
    if fits.dropped:
        return f"{fits.dropped}\n{remedy(replace(fits, dropped=''))}"
    if fits.fits:
        return f"It fits, with {least} per stage, if you add: {words}"
    if not words:
        return "None of the settings tried saves memory: use more devices, smaller batches or a smaller model."
    return (
        f"None of the settings tried makes it fit. The least is {least} per stage, with: {words}\n"
        "Also use more devices, smaller batches or a smaller model."
    )


def _note(plans: Sequence[StagePlan]) -> str:
    """Returns a note: what the figures of memory and time include, or the options that add them."""
    if plans[0].device_step_bytes is None:
        memory = "Activations and gradients are not included: omit --no-compile to add them."
    else:
        backend = jax.default_backend()
        memory = (
            f"A step's memory (batch, activations, gradients) is XLA's figure for {backend}. Other backends fuse "
            "differently and need less or more."
        )
    if plans[0].seconds is None:
        return f"{memory} For times, set --tflops."
    return f"{memory} Times are for the arithmetic alone, at the given rate; input and communication are extra."


def _prepare(options: PlanOptions) -> int | None:
    """Simulates --devices, or returns the number of devices of --on."""
    if options.on is None:
        _simulate_devices(options)
        return None
    if options.devices is not None:
        raise JclipError(f"--on {options.on} has its own number of devices: omit --devices")
    return parse_place(options.on).devices


def _simulate_devices(options: PlanOptions) -> None:
    """Simulates --devices on this machine's CPU. It must run before jax initialises its devices."""
    if options.devices is None:
        return
    if options.devices < 1:
        raise JclipError(f"--devices is {options.devices}; expected 1 or more")
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.devices)
    except RuntimeError as error:
        raise JclipError(f"--devices needs a process of its own: {str(error).partition(':')[0]}") from None
