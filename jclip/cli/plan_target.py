"""Tables of `jclip plan --on TARGET` and `jclip plan --targets`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from jclip.accelerators.peaks import is_kind_of
from jclip.accelerators.roofline import assumptions
from jclip.accelerators.targets import GPU_SHARE, TARGETS, Place, Target
from jclip.cli.options import read
from jclip.console import Console, text
from jclip.errors import JclipError
from jclip.plain import print_json
from jclip.train.planning.on_target import StageOnTarget
from jclip.train.planning.run_plan import RunPlan
from jclip.train.planning.stage_plan import StagePlan
from jclip.units import format_duration, format_flops, format_size


@dataclass(frozen=True)
class TargetsOptions:
    """Lists the devices for which `jclip plan CONFIG --on` can compile. Figures are for one device, as published.

    Attributes:
      targets: list them.
      json: print JSON.
    """

    targets: bool = False
    json: bool = False


def list_targets(arguments: Sequence[str]) -> int:
    """Runs `jclip plan --targets`. Raises JclipError if a configuration is given too."""
    if given := [word for word in arguments if not word.startswith("-")]:
        raise JclipError(f"--targets lists all devices and takes no CONFIG: omit {' '.join(given)}")
    options = read(TargetsOptions, arguments, "jclip plan")
    if options.json:
        print_json([_target_record(target) for target in TARGETS.values()], indent=1)
        return 0
    table = Table(title="devices for jclip plan CONFIG --on NAME:SHAPE, as published, for one device")
    table.add_column("name", no_wrap=True)
    table.add_column("device", overflow="fold")
    for heading in ("memory", "GB/s", "TFLOP/s", "links, GB/s", "network, GB/s"):
        table.add_column(heading, justify="right", overflow="fold")
    for target in TARGETS.values():
        rates = (target.bandwidth / 1e9, target.peak / 1e12, target.link / 1e9, target.network / 1e9)
        table.add_row(
            target.name,
            target.title,
            format_size(target.memory),
            *(f"{rate:,.4g}" for rate in rates),
        )
    console = Console()
    console.print(table)
    console.tell(
        f"Memory is what a program may use, {GPU_SHARE:.0%} of a GPU's. TFLOP/s are dense bfloat16, of v100 float32. "
        "Links are all those of a device to its neighbours in a slice or host, and the network is its share of its "
        "host's; both in one direction. Shapes of TPUs are in chips; v3 and tpu7x have two devices a chip."
    )
    for heading, texts in (
        ("Shapes of", {target.name: target.arrangement.possible for target in TARGETS.values()}),
        ("Sources of", {target.name: target.source for target in TARGETS.values()}),
    ):
        for words in dict.fromkeys(texts.values()):
            names = ", ".join(name for name, text in texts.items() if text == words)
            console.tell(f"{heading} {names}: {words}.")
    return 0


def show_target(name: str, place: Place, plans: Sequence[StagePlan], steps: Sequence[StageOnTarget]) -> None:
    """Prints the steps that were compiled for a target: memory, arithmetic, communication and estimated time."""
    console, target = Console(), place.target
    title = f"{name} on {place.name}: {place.devices} x {target.title}, each"
    table = Table(title=text(title), title_justify="left")
    table.add_column("")
    for number, plan in enumerate(plans, 1):
        table.add_column(text(f"{number} {plan.name}"), justify="right")
    for heading, cells in _rows(plans, steps).items():
        table.add_row(heading, *cells)
    console.print(table)
    console.tell(f"Compiled for {target.title} by its own compiler, on this machine. Nothing was run.")
    console.tell(
        "Figures are for one device, batches for all devices together. Products are matmuls and convolutions, and "
        "include recomputed ones."
    )
    console.tell(
        "Available is what its compiler lets a program use."
        if target.platform == "tpu"
        else f"Available is {GPU_SHARE:.0%} of a device's memory, which `jclip train` takes."
    )
    if any(step.refused for step in steps):
        console.tell(
            "The compiler refuses a step that does not fit, so its products, communication and time are not known. The "
            "memory that it names may be a fifth too high."
        )
    if sentences := _assumptions(steps):
        console.tell("Times are estimates, from published rates:")
        for sentence in sentences:
            console.tell(f"- {sentence}")
    for sentence in dict.fromkeys(sentence for step in steps for sentence in step.unknown):
        console.tell(f"Not in the estimate: {sentence}")
    for sentence in (step.search_failed for step in steps if step.search_failed):
        console.tell(sentence)


def show_measured(found: RunPlan) -> None:
    """Prints the steps that were measured on the attached devices, beside what was estimated for the target."""
    first = found.measured[0]
    table = Table(title=text(f"measured on {first.devices} x {first.kind}, attached here"), title_justify="left")
    table.add_column("")
    for number, plan in enumerate(found.stages, 1):
        table.add_column(text(f"{number} {plan.name}"), justify="right")
    table.add_row("time per step", *(format_duration(each.seconds) for each in found.measured))
    pairs = zip(found.measured, found.stages, strict=True)
    table.add_row("pairs per second", *(f"{plan.batch_size / each.seconds:,.4g}" for each, plan in pairs))
    if found.place and any(step.estimate for step in found.on):
        same = first.devices == found.place.devices and is_kind_of(first.kind, found.place.target)
        ratios = (
            _or_none(step.estimate, lambda estimate, each=each: f"{each.seconds / estimate.seconds:,.3g}")
            if same
            else "(other devices)"
            for each, step in zip(found.measured, found.on, strict=True)
        )
        table.add_row("times the estimate", *ratios)
    if first.peak is not None:
        table.add_row("most memory in use so far", *(format_size(each.peak or 0) for each in found.measured))
    Console().print(table)


def _rows(plans: Sequence[StagePlan], steps: Sequence[StageOnTarget]) -> dict[str, list[str | Text]]:
    """Returns the table's rows: a cell for each stage."""
    rows: dict[str, list[str | Text]] = {
        "parameters and optimizer state": [format_size(step.state) for step in steps],
        "a step's other memory": [format_size(step.needed - step.state) for step in steps],
        "available": [format_size(step.available) for step in steps],
        "headroom": [_headroom(step) for step in steps],
    }
    if any(step.largest_batch or step.too_large_batch for step in steps):
        rows["largest batch found that fits"] = [_largest(step) for step in steps]
    rows["products per step"] = [_or_none(step.products, format_flops) for step in steps]
    for kind in dict.fromkeys(kind for step in steps for kind in step.communication or ()):
        rows[f"{kind}: times, bytes sent"] = [_sent(step, kind) for step in steps]
    counted = any(step.estimate and step.estimate.compiler for step in steps)
    parts = "by products + memory + links alone" if counted else "products + memory + links"
    rows["estimated time per step"] = [
        _or_none(step.estimate, lambda found: format_duration(found.seconds)) for step in steps
    ]
    rows[f"  {parts}"] = [
        _or_none(
            step.estimate,
            lambda found: " + ".join(map(format_duration, (found.products, found.traffic, found.links))),
        )
        for step in steps
    ]
    rows["estimated use of the peak"] = [
        _or_none(step.estimate, lambda found: f"{found.utilisation:.0%}") for step in steps
    ]
    rows["estimated time of the stage"] = [
        _or_none(step.estimate, lambda found, plan=plan: format_duration(found.seconds * plan.steps))
        for plan, step in zip(plans, steps, strict=True)
    ]
    return rows


def _headroom(step: StageOnTarget) -> Text:
    if step.headroom >= 0:
        return text(format_size(step.headroom), "green")
    return text(f"{format_size(-step.headroom)} too much", "red")


def _largest(step: StageOnTarget) -> str:
    fits = "none" if step.largest_batch is None else f"{step.largest_batch:,}"
    return f"{fits} or more" if step.too_large_batch is None else f"{fits} ({step.too_large_batch:,} does not fit)"


def _or_none(value: Any, show: Any) -> str:
    return "-" if value is None else show(value)


def _sent(step: StageOnTarget, kind: str) -> str:
    if step.communication is None:
        return "-"
    found = step.communication.get(kind)
    return f"{found.executions:,}, {format_size(found.wire)}" if found else "0"


def _assumptions(steps: Sequence[StageOnTarget]) -> tuple[str, ...]:
    return assumptions([step.estimate for step in steps if step.estimate])


def as_record(found: RunPlan) -> dict[str, Any]:
    """Returns a plan as a JSON object; dataclasses in it are left to `dataclasses.asdict`."""
    record = dict(vars(found))
    if found.place is None:
        del record["place"], record["on"]
        return record
    steps = [
        {
            **dataclasses.asdict(step),
            "communication": step.communication and {name: each._asdict() for name, each in step.communication.items()},
            "headroom": step.headroom,
            "seconds": step.estimate.seconds if step.estimate else None,
        }
        for step in found.on
    ]
    place = {
        "name": found.place.name,
        "devices": found.place.devices,
        "hosts": found.place.hosts,
        "target": _target_record(found.place.target),
    }
    return {**record, "place": place, "on": steps, "assumptions": _assumptions(found.on)}


def _target_record(target: Target) -> dict[str, Any]:
    record = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
    return {**record, "arrangement": target.arrangement.possible}
