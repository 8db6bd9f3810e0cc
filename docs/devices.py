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
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from docs.compiled import RECORDS, Key, Series, Steps, compile_step, program_of, series
from docs.records import unless_refused
from docs.tables import gib, rewritten, table
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.shapes import named
from jclip.accelerators.targets import TARGETS, Place, Target
from jclip.configs.loading import load_config
from jclip.console import Console
from jclip.errors import JclipError
from jclip.models.compute import Remat
from jclip.stages import Stage
from jclip.units import format_duration

FILE = Path(__file__).with_suffix(".md")
LAUNCH = Path(__file__).parents[1] / "launch" / "README.md"
RECIPES = (
    "chinese_clip/rn50", "chinese_clip/vit_b_16", "chinese_clip/vit_l_14", "chinese_clip/vit_l_14_336",
    "chinese_clip/vit_h_14", "altclip/vit_l_14", "altclip/vit_l_14_m9", "altclip/vit_h_14_m18",
)  # fmt: skip
SHOWN = ("v4", "v5e", "v5p", "v6e", "v100", "a100-40", "a100", "h100", "h200", "b200")
"""Targets of the page."""
REMATS: tuple[Remat, ...] = ("dots", "layers")
"""Rematerialisations that are compiled: with "none" a step needs about twice the memory of "dots"."""
LAYERS = ("v5e", "v100", "a100-40", "a100")
"""Targets for which "layers" is compiled; the others have more memory."""
LEADERS = ("v5e", "v5p", "a100")
"""Targets with two batches or more for "dots". What does not depend on the batch is then known for the others too."""
DEVICES = 8
"""Number of devices for which steps are compiled."""
FIRST = 16
"""Pairs per device of the first step of a cell."""
EXCERPT = ("altclip/vit_l_14", "chinese_clip/vit_b_16"), ("v5e", "v5p", "v6e", "a100-40", "a100", "h100")

_UNIT = 8  # pairs per device are multiples of it
_FILLED = 0.85  # share of the memory from which on a compiled step confirms the largest batch
_AIM = 0.93  # share of the memory that the second step of a cell should need
_MOST = 8192  # pairs per device
_GUESS = 90.0  # seconds of a compilation, while none is known


@dataclass(frozen=True)
class Cell:
    """A stage of a recipe on one target, with one rematerialisation."""

    recipe: str
    stage: Stage
    target: Target
    remat: Remat

    @property
    def place(self) -> Place:
        """Devices for which it is compiled."""
        target = TARGETS[program_of(self.target.name)]
        shape = target.arrangement.with_devices(DEVICES)
        assert shape is not None
        return Place(target, shape)

    def mesh(self, steps: Steps) -> str:
        """Returns "data" if the state and the gradients fit one device, or are not known yet, and "fsdp" otherwise."""
        first = steps.get(self.key("data", FIRST))
        if first and first.needed > self.target.memory:
            return "fsdp"
        known = [step for key, step in steps.items() if (key.recipe, key.stage) == (self.recipe, self.stage.name)]
        return "fsdp" if any(step.whole + step.gradients > self.target.memory for step in known) else "data"

    def key(self, mesh: str, pairs: int) -> Key:
        """Returns the key of a step."""
        return Key(self.recipe, self.stage.name, self.place.name, mesh, self.remat, pairs)

    def found(self, steps: Steps) -> Series | None:
        """Returns what has been compiled, as a line that begins where that of `_origin` does."""
        found = self._compiled(steps)
        return found and found.with_origin(self._origin(steps))

    def _compiled(self, steps: Steps) -> Series | None:
        return series(steps, self.recipe, self.stage.name, self.target.name, self.mesh(steps), self.remat, DEVICES)

    def _origin(self, steps: Steps) -> Series | None:
        """Returns steps whose part that does not depend on the batch is that of this cell; None if there are none."""
        if self.remat == "layers":
            return replace(self, remat="dots").found(steps)
        if program_of(self.target.name) in LEADERS:
            return None
        leaders = [replace(self, target=TARGETS[name]) for name in LEADERS]
        return next(
            (
                found
                for leader in leaders
                if leader.target.platform == self.target.platform
                and leader.mesh(steps) == self.mesh(steps)
                and (found := leader._compiled(steps))
                and found.accounted
            ),
            None,
        )

    def next_batch(self, steps: Steps) -> int | None:
        """Returns the pairs per device of the next step to compile; None if the cell is complete."""
        each = self._bytes_of_a_pair(steps)
        if found := self.found(steps):
            return next_batch(found, each)
        begun = self._origin(steps)
        if begun is None or not begun.accounted:
            return FIRST
        if each:
            return max(_filling(self.target.memory, begun.needed(0, DEVICES), each), 1)
        return max(_rounded(begun.largest(DEVICES)), 1)  # "layers" needs less than "dots"

    def _bytes_of_a_pair(self, steps: Steps) -> float:
        """Returns what each pair needs on other targets, about; 0 if nothing is known."""
        slopes = []
        for name in SHOWN:
            found = replace(self, target=TARGETS[name]).found(steps) if name != self.target.name else None
            if found and len(found.steps) > 1:
                (low, less), (high, more) = found.steps[0], found.steps[-1]
                slopes.append((more.needed - less.needed) / (high - low))
        return statistics.median(slopes) if slopes else 0.0


def cells(recipes: Sequence[str], targets: Sequence[str], remats: Sequence[Remat] = REMATS) -> list[Cell]:
    """Returns the cells of these recipes and targets, in the order in which they are compiled."""
    return [
        Cell(recipe, stage, TARGETS[target], remat)
        for remat in remats
        for recipe in recipes
        for stage in load_config(recipe).stages
        for target in sorted(targets, key=lambda name: name not in LEADERS)
        if remat != "layers" or target in LAYERS
    ]


def next_batch(found: Series, each: float = 0.0) -> int | None:
    """Returns the pairs per device of the next step to compile for a cell; None if it is complete.

    The second step should nearly fill the memory. A third is where the line through the others meets it.

    Args:
      each: bytes that a pair needs, from other targets; 0 to guess them from the first step.
    """
    first, memory = found.first, found.target.memory
    known = dict(found.steps)
    if len(known) == 1:
        fixed = first.state + first.gradients
        pairs = _filling(memory, fixed, each or max(first.needed - fixed, first.needed // 20) / found.steps[0][0])
        if pairs in known or pairs < 1:
            pairs = max(found.steps[0][0] // 2, 1)
        return pairs if pairs not in known else None
    if len(known) > 2 and not found.accounted:  # others were refused
        pairs = _rounded(found.largest(DEVICES) / 2)
        return pairs if pairs > 0 and pairs not in known and len(known) < 5 else None
    if len(known) > 2 or confirmed(found):
        return None
    pairs = min(_rounded(found.largest(DEVICES)), _MOST)
    return pairs if pairs > 0 and pairs not in known else None


def _filling(memory: float, fixed: float, each: float) -> int:
    """Returns the pairs that nearly fill a memory, beside bytes that do not depend on them."""
    return min(_rounded((_AIM * memory - fixed) / each), _MOST)


def confirmed(found: Series) -> int:
    """Returns the largest batch that was compiled, fits, and nearly fills the memory; 0 if none does."""
    memory = found.target.memory
    filling = (pairs for pairs, step in found.steps if _FILLED * memory < step.needed <= memory)
    return max(filling, default=0)


def compile_all(wanted: Sequence[Cell], steps: Steps, console: Console) -> None:
    """Compiles the missing steps of these cells, and adds them to the file."""
    progress = _Progress(len(wanted), steps)
    for number, cell in enumerate(wanted):
        with CompilerProcess(cell.place) as process:
            while (pairs := cell.next_batch(steps)) is not None:
                key = cell.key(cell.mesh(steps), pairs)
                console.tell(f"{progress.left(number)}: {' '.join(map(str, (vars(key).values())))}")
                step = unless_refused(partial(compile_step, process, key), console)
                if step is None:
                    break
                steps |= RECORDS.add(key, step)


class _Progress:
    """Estimate of the time that is left, from the compilations so far."""

    def __init__(self, cells: int, steps: Steps):
        self._cells, self._begun = cells, time.monotonic()
        self._guess = 2.5 * statistics.fmean([step.seconds for step in steps.values()] or [_GUESS])

    def left(self, number: int) -> str:
        spent = time.monotonic() - self._begun
        each = spent / number if number > 2 else self._guess
        return f"{number + 1} of {self._cells}, about {format_duration(each * (self._cells - number))} left"


def _rounded(pairs: float) -> int:
    """Rounds pairs per device down: to a multiple of 8, or to a whole number below 8."""
    return int(pairs) if pairs < _UNIT else int(pairs) // _UNIT * _UNIT


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
    fitting = (
        place
        for place in places(found.target, batch)
        if found.needed(batch / place.devices, place.devices) <= found.target.memory
    )
    return next(fitting, None)


HEAD = (
    "recipe, stage", "batch", "mesh", "GFLOP a pair", "largest a device", "devices", "memory, GiB", "step", "peak used",
    "stage's time",
)  # fmt: skip


def target_table(name: str, steps: Steps) -> str:
    """Returns the table of one target."""
    rows = []
    for recipe in RECIPES:
        for number, stage in enumerate(load_config(recipe).stages, 1):
            both = [Cell(recipe, stage, TARGETS[name], remat) for remat in REMATS]
            kept = [(cell, found) for cell in both if (found := cell.found(steps)) and found.accounted]
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
    if pairs := confirmed(found):
        return f"{pairs:,}"
    pairs = _rounded(found.largest(DEVICES))
    return f"~{pairs:,}" if pairs else "none"


def excerpt(steps: Steps) -> str:
    """Returns the table for launch/README.md."""
    recipes, targets = EXCERPT
    rows = []
    for recipe in recipes:
        for number, stage in enumerate(load_config(recipe).stages, 1):
            row = [f"{recipe} {number}", f"{stage.batch_size:,}"]
            for target in targets:
                remats = [remat for remat in REMATS if remat != "layers" or target in LAYERS]
                each = [Cell(recipe, stage, TARGETS[target], remat).found(steps) for remat in remats]
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
    errors = []
    for cell in cells(RECIPES, [name for name in SHOWN if program_of(name) == name], ["dots"]):
        found = cell.found(steps)
        if found and len(found.steps) > 2:
            (low, middle, high) = found.steps[:3]
            line = replace(found, steps=(low, high))
            errors.append(abs(line.needed(middle[0], DEVICES) / middle[1].needed - 1))
    if not errors:
        return ""
    return (
        f"Of {len(errors)} cells with three batches, the middle one needs what the line through the other two says to "
        f"within {max(errors):.1%} (median {statistics.median(errors):.1%}).\n"
    )


def tables(steps: Steps) -> dict[str, str]:
    """Returns the generated parts of docs/devices.md by name."""
    return {name: target_table(name, steps) for name in SHOWN} | {"deviation": deviation(steps)}


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
            again = {cell.key("", 0) for cell in wanted}
            steps = RECORDS.change(
                lambda known: {key: known[key] for key in known if replace(key, mesh="", pairs=0) not in again}
            )
        try:
            compile_all(wanted, steps, console)
        except (KeyboardInterrupt, JclipError) as error:
            console.tell(f"Stopped{f': {error}' if str(error) else ''}. The same command continues.")
    draw(steps)


if __name__ == "__main__":
    main()
