"""Compiles the recipes for each accelerator, and draws docs/devices.md.

    python -m docs.devices                             # everything: hours
    python -m docs.devices --targets v5e a100 --recipes chinese_clip/vit_b_16
    python -m docs.devices --draw                      # only the page, from docs/compiled.json

Each stage is compiled for eight devices and for one to three batches. Compiled steps are added to docs/compiled.json at
once and are not compiled again, so an interrupted command continues, and several commands may run at the same time for
different targets. `--again` removes steps from that file first; those of an unchanged program then come from jclip's
cache.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from docs import published
from docs.cells import DEVICES, FIRST, LAYERS, RECIPES, REMATS, SHOWN, Cell, cells, compile_all, confirmed, rounded
from docs.compiled import RECORDS, Series, Steps, program_of, series
from docs.tables import gib, rewritten, table
from jclip.accelerators.shapes import named
from jclip.accelerators.targets import TARGETS, Place, Target, parse_place
from jclip.configs.loading import load_config
from jclip.console import Console
from jclip.errors import JclipError
from jclip.models.compute import Remat
from jclip.units import format_duration

FILE = Path(__file__).with_suffix(".md")
LAUNCH = Path(__file__).parents[1] / "launch" / "README.md"
EXCERPT = ("altclip/vit_l_14", "chinese_clip/vit_b_16"), ("v5e", "v5p", "v6e", "a100-40", "a100", "h100")


def places(target: Target, batch: int) -> Iterator[Place]:
    """Yields places of a target whose devices divide a batch, the smallest first."""
    shape = target.arrangement.with_devices(1)
    while shape is not None:
        place = Place(target, shape)
        if place.devices > batch:
            return
        if batch % place.devices == 0:
            yield place
        shape = target.arrangement.with_devices(place.devices + 1)


def smallest(found: Series, batch: int) -> Place | None:
    """Returns the smallest place that takes a batch; None if there is none."""
    fitting = (place for place in places(found.target, batch) if found.fits(batch / place.devices, place.devices))
    return next(fitting, None)


HEAD = (
    "recipe, stage", "batch", "mesh", "GFLOP a pair", "largest a device", "devices", "memory, GiB", "step", "peak used",
    "stage's time",
)  # fmt: skip

_APART = 1.1  # smallest ratio of two batches that tells something about a line through them


def target_table(name: str, steps: Steps) -> str:
    """Returns the table of one target."""
    rows = []
    for recipe in RECIPES:
        for number, stage in enumerate(load_config(recipe).stages, 1):
            both = [Cell(recipe, stage, TARGETS[name], remat) for remat in REMATS]
            kept = [(cell, found) for cell in both if (found := cell.line(steps)) and found.accounted]
            if kept:
                rows.append([f"{recipe} {number}", f"{stage.batch_size:,}", *_row(kept, steps)])
    return table(HEAD, rows) if rows else "Not compiled yet.\n"


def _row(kept: Sequence[tuple[Cell, Series]], steps: Steps) -> list[str]:
    """Returns a row's cells after the batch. Memory and time are those with the least recomputation that fits."""
    stage = kept[0][0].stage
    found_places = [smallest(found, stage.batch_size) for _, found in kept]
    meshes = " / ".join(dict.fromkeys(cell.mesh(steps) for cell, _ in kept))
    arithmetic = " / ".join(f"{found.flops(FIRST) / FIRST / 1e9:,.0f}" for _, found in kept)
    largest = " / ".join(_largest(found) for _, found in kept)
    devices = " / ".join(named(place.shape) if place else "-" for place in found_places)
    row = [meshes, arithmetic, largest, devices]
    chosen = next(
        ((found, place) for (_, found), place in zip(kept, found_places, strict=True) if place is not None), None
    )
    if chosen is None:
        return [*row, "-", "-", "-", "-"]
    found, place = chosen
    pairs = stage.batch_size / place.devices
    seconds = found.seconds(pairs, place.devices)
    used = found.flops(pairs) / found.target.peak / seconds
    total = seconds * stage.budget.in_steps(stage.batch_size, 0)
    needed = gib(found.needed(pairs, place.devices))
    return [*row, needed, format_duration(seconds), f"{used:.0%}", format_duration(total)]


def _largest(found: Series) -> str:
    """Returns the largest batch that fits, compiled or on the line; after "~" if none near it is compiled."""
    pairs = max(rounded(found.largest(DEVICES)), confirmed(found))
    if not pairs:
        return "none"
    near = any(max(pairs, known) < _APART * min(pairs, known) for known, _ in found.steps)
    return f"{pairs:,}" if near else f"~{pairs:,}"


def excerpt(steps: Steps) -> str:
    """Returns the table for launch/README.md."""
    recipes, targets = EXCERPT
    rows = []
    for recipe in recipes:
        for number, stage in enumerate(load_config(recipe).stages, 1):
            row = [f"{recipe} {number}", f"{stage.batch_size:,}"]
            for target in targets:
                remats = [remat for remat in REMATS if remat != "layers" or target in LAYERS]
                each = [Cell(recipe, stage, TARGETS[target], remat).line(steps) for remat in remats]
                row.append(" / ".join(_count(found, stage.batch_size) for found in each))
            rows.append(row)
    return table(("recipe, stage", "batch", *targets), rows)


def _count(found: Series | None, batch: int) -> str:
    """Returns the number of devices that a batch needs: "-" if no place has it, "?" if nothing is compiled."""
    if found is None or len(found.steps) < 2:
        return "?"
    place = smallest(found, batch)
    return str(place.devices) if place else "-"


def deviation(steps: Steps) -> str:
    """Returns a sentence with the distance of compiled steps from the line through a smaller and a larger batch."""
    errors = {
        f"{cell.recipe} ({cell.stage.name}) on {cell.target.name} with {middle[0]:,} pairs": abs(
            replace(found, steps=(low, high)).needed(middle[0], DEVICES) / middle[1].needed - 1
        )
        for cell in cells(RECIPES, [name for name in SHOWN if program_of(name) == name])
        if (found := cell.compiled(steps))
        for low, middle, high in zip(found.steps, found.steps[1:], found.steps[2:], strict=False)
        if _APART * low[0] <= middle[0] <= high[0] / _APART
    }
    if not errors:
        return ""
    have, their = ("has", "Its") if len(errors) == 1 else ("have", "Their")
    farthest = max(errors, key=errors.__getitem__)
    return (
        f"{len(errors)} of the compiled batches {have} a smaller and a larger one at least {_APART - 1:.0%} away. "
        f"{their} memory is on the line through those two to within {errors[farthest]:.1%} (median "
        f"{statistics.median(errors.values()):.1%}). Farthest from it is {farthest}.\n"
    )


def split_deviation(steps: Steps) -> str:
    """Returns a sentence about steps with split parameters on more than DEVICES, beside their estimate."""
    ratios = []
    for key, step in steps.items():
        place = parse_place(key.place)
        if key.mesh != "fsdp" or place.devices <= DEVICES:
            continue
        found = series(steps, key.recipe, key.stage, place.target.name, key.mesh, key.remat, DEVICES)
        if found and len(found.steps) > 1:
            ratios.append(step.needed / found.needed(key.pairs, place.devices) - 1)
    if not ratios:
        return ""
    span = " to ".join(dict.fromkeys(f"{ratio:+.0%}" for ratio in (min(ratios), max(ratios))))
    return f"The memory of such steps, compiled for more than {DEVICES} devices, differs from this by {span}.\n"


def measured(steps: Steps) -> str:
    """Returns a sentence with the range of the measured times of cn_clip's steps over their estimates."""
    found = [ratio for row in published.flash_rows(steps) for ratio in row.ratios]
    if not found:
        return ""
    return (
        f"cn_clip's steps on eight A100s take {min(found):.1f} to {max(found):.1f} times the estimate of jclip's step "
        "with the same batch, see [scaling.md](scaling.md).\n"
    )


def tables(steps: Steps) -> dict[str, str]:
    """Returns the generated parts of docs/devices.md by name."""
    return {name: target_table(name, steps) for name in SHOWN} | {
        "deviation": deviation(steps),
        "split": split_deviation(steps),
        "measured": measured(steps),
    }


def draw(steps: Steps) -> None:
    """Rewrites the tables of docs/devices.md and launch/README.md."""
    for file, parts in ((FILE, tables(steps)), (LAUNCH, {"devices": excerpt(steps)})):
        file.write_text(rewritten(file.read_text(encoding="utf-8"), parts), encoding="utf-8")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    alone = [name for name in SHOWN if program_of(name) == name]
    parser.add_argument("--targets", nargs="+", default=alone, choices=alone, help="by default all")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES)
    parser.add_argument("--remat", nargs="+", default=REMATS, choices=get_args(Remat))
    parser.add_argument("--again", action="store_true", help="compile steps that are in docs/compiled.json")
    parser.add_argument("--draw", action="store_true", help="compile nothing")
    options = parser.parse_args()
    steps, console = RECORDS.read(), Console()
    if not options.draw:
        wanted = cells(options.recipes, options.targets, options.remat)
        if options.again:
            steps = RECORDS.change(
                lambda known: {key: step for key, step in known.items() if not any(cell.has(key) for cell in wanted)}
            )
        try:
            compile_all(wanted, steps, console)
        except (KeyboardInterrupt, JclipError) as error:
            console.tell(f"Stopped{f': {error}' if str(error) else ''}. The same command continues.")
    draw(steps)


if __name__ == "__main__":
    main()
