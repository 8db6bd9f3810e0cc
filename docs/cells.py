"""Cells of docs/devices.md, and the steps that are compiled for each.

A cell is a stage of a recipe on one target with one rematerialisation. The memory and the time of its step are lines in
the number of pairs per device, so a few compiled batches give all others. As a compilation takes minutes, each cell has
as few as possible:

1. A cell of a leader (LEADERS) with "dots" first has a small batch (FIRST), then one that fills most of the memory, as
   much as `_aim` says. What a pair needs on other targets decides that batch, or a guess from the first step.
2. Other cells have no small batch. What does not depend on the batch is the same with "layers" as with "dots", and on
   all targets of a platform with the same mesh. So the value of their line at zero pairs is taken from such a cell
   (`Cell._origin`), and one batch that fills most of the memory is enough.
3. If that batch does not fit, or needs much less memory than intended, another one follows (`following_batch`). It is
   where the line through the others needs as much as intended.
4. If the compiler refuses steps, only their memory is known. Smaller batches follow until two are accepted, or five
   steps have been tried.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from docs.compiled import RECORDS, Key, Series, Steps, compile_step, program_of, series
from docs.records import unless_refused
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import TARGETS, Place, Target
from jclip.configs.loading import load_config
from jclip.console import Console
from jclip.models.compute import Remat
from jclip.stages import Stage
from jclip.train.planning.remat import STEP_SHARE
from jclip.units import format_duration

RECIPES = (
    "chinese_clip/rn50", "chinese_clip/vit_b_16", "chinese_clip/vit_l_14", "chinese_clip/vit_l_14_336",
    "chinese_clip/vit_h_14", "altclip/vit_l_14", "altclip/vit_l_14_m9", "altclip/vit_h_14_m18",
)  # fmt: skip
SHOWN = ("v4", "v5e", "v5p", "v6e", "v100", "a100-40", "a100", "h100", "h200", "b200")
"""Targets of the page."""
REMATS: tuple[Remat, ...] = ("dots", "layers")
"""Rematerialisations that are compiled: with "none" a step needs about twice the memory of "dots"."""
LAYERS = ("v5e", "v100", "a100-40", "a100")
"""Targets for which "layers" is compiled: the TPU with the least memory, and the GPUs up to the A100."""
GPU_ONLY = ("chinese_clip/rn50",)
"""Recipes that are not compiled for TPUs, whose compiler took seven minutes for one of their steps."""
LEADERS = ("v5e", "v5p", "a100")
"""Targets with two batches or more for "dots", except if an earlier one of the same platform has the same mesh.

What does not depend on the batch is then known for the others too.
"""
DEVICES = 8
"""Number of devices for which steps are compiled."""
FIRST = 16
"""Pairs per device of the first step of a cell."""
MOST = 8192
"""Largest number of pairs per device for which steps are compiled."""

_UNIT = 8  # pairs per device are multiples of it
_TRIES = 3  # compilations of a cell that may fail: a compiler can crash with one batch and accept a smaller one
_GUESS = 90.0  # seconds of a compilation, while none is known


def _aim(target: Target) -> float:
    """Returns the share of the memory that the last step of a cell should need.

    The compilers of TPUs take longest for batches that are large or nearly fill the memory: on v6e, beside other work
    on the machine, over half an hour.
    """
    if target.platform == "cuda":
        return 0.93
    return 0.75 if target.name == "v5e" else 0.5


_ENOUGH = 0.8  # of that share: no further step is compiled after one that needs as much


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

    def has(self, key: Key) -> bool:
        """Returns True if a step is one of this cell, with any mesh and batch."""
        return self.key(key.mesh, key.pairs) == key

    def key(self, mesh: str, pairs: int) -> Key:
        """Returns the key of a step."""
        return Key(self.recipe, self.stage.name, self.place.name, mesh, self.remat, pairs)

    def line(self, steps: Steps) -> Series | None:
        """Returns the compiled steps, and one with zero pairs if `_origin` has it."""
        found = self.compiled(steps)
        return found and found.with_origin(self._origin(steps))

    def compiled(self, steps: Steps) -> Series | None:
        """Returns the compiled steps; None if there are none."""
        return series(steps, self.recipe, self.stage.name, self.target.name, self.mesh(steps), self.remat, DEVICES)

    def _origin(self, steps: Steps) -> Series | None:
        """Returns steps whose line has the same value as this cell's at zero pairs; None if there are none."""
        if self.remat == "layers":
            return replace(self, remat="dots").line(steps)
        earlier = takewhile(lambda name: name != program_of(self.target.name), LEADERS)
        leaders = [replace(self, target=TARGETS[name]) for name in earlier]
        return next(
            (
                found
                for leader in leaders
                if leader.target.platform == self.target.platform
                and leader.mesh(steps) == self.mesh(steps)
                and (found := leader.compiled(steps))
                and found.accounted
            ),
            None,
        )

    def next_batch(self, steps: Steps) -> int | None:
        """Returns the pairs per device of the next step to compile; None if the cell is complete."""
        bytes_per_pair = self._bytes_per_pair(steps)
        if found := self.line(steps):
            return following_batch(found, bytes_per_pair)
        begun = self._origin(steps)
        if begun is None or not begun.accounted:
            return FIRST
        if bytes_per_pair:
            return max(_filling(self.target, begun.needed(0, DEVICES), bytes_per_pair), 1)
        return max(rounded(begun.largest(DEVICES)), 1)  # "layers" needs less than "dots"

    def _bytes_per_pair(self, steps: Steps) -> float:
        """Returns what each pair needs on other targets, about; 0 if nothing is known."""
        slopes = []
        for name in SHOWN:
            found = replace(self, target=TARGETS[name]).line(steps) if name != self.target.name else None
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
        if recipe not in GPU_ONLY or TARGETS[target].platform != "tpu"
    ]


def following_batch(found: Series, bytes_per_pair: float = 0.0) -> int | None:
    """Returns the pairs per device of the next step to compile for a cell; None if it is complete.

    The second step should need as much memory as `_aim` says. A third is where the line through the others does.

    Args:
      bytes_per_pair: bytes that a pair needs, from other targets; 0 to guess them from the first step.
    """
    first, known = found.first, dict(found.steps)
    if len(known) == 1:
        fixed = first.state + first.gradients
        guess = max(first.needed - fixed, first.needed // 20) / found.steps[0][0]
        pairs = _filling(found.target, fixed, bytes_per_pair or guess)
        if pairs in known or pairs < 1:
            pairs = max(found.steps[0][0] // 2, 1)
        return pairs if pairs not in known else None
    if len(known) > 2 and not found.accounted:  # others were refused
        pairs = rounded(found.largest(DEVICES) / 2)
        return pairs if pairs > 0 and pairs not in known and len(known) < 5 else None
    if len(known) > 2 or _filled(found):
        return None
    pairs = min(rounded(_aim(found.target) / STEP_SHARE * found.largest(DEVICES)), MOST)
    return pairs if pairs > 0 and pairs not in known else None


def _filling(target: Target, fixed: float, bytes_per_pair: float) -> int:
    """Returns the pairs that fill a target's memory as far as intended, beside bytes that do not depend on them."""
    return min(rounded((_aim(target) * target.memory - fixed) / bytes_per_pair), MOST)


def confirmed(found: Series) -> int:
    """Returns the largest batch that was compiled and fits; 0 if none does."""
    return max((pairs for pairs, step in found.steps if step.needed <= found.room), default=0)


def _filled(found: Series) -> bool:
    """Returns True if the memory is filled as far as intended by a compiled step that the target can run."""
    memory = found.target.memory
    return any(_ENOUGH * _aim(found.target) * memory < step.needed <= memory for _, step in found.steps)


def compile_all(wanted: Sequence[Cell], steps: Steps, console: Console) -> None:
    """Compiles the missing steps of these cells, and adds them to the file."""
    progress = _Progress(len(wanted), steps)
    for number, cell in enumerate(wanted):
        failed = 0
        with CompilerProcess(cell.place) as process:
            while failed < _TRIES and (pairs := cell.next_batch(steps)) is not None:
                key = cell.key(cell.mesh(steps), max(rounded((1 - failed / _TRIES) * pairs), 1))
                console.tell(f"{progress.left(number)}: {' '.join(map(str, (vars(key).values())))}")
                step = unless_refused(partial(compile_step, process, key), console)
                if step is None:
                    failed += 1
                else:
                    steps |= RECORDS.add(key, step)


class _Progress:
    """Estimate of the time that is left, from the compilations so far."""

    def __init__(self, cells: int, steps: Steps):
        self._cells, self._begun = cells, time.monotonic()
        self._guess = 2.5 * statistics.fmean([step.seconds for step in steps.values()] or [_GUESS])

    def left(self, number: int) -> str:
        spent = time.monotonic() - self._begun
        seconds = spent / number if number > 2 else self._guess
        return f"{number + 1} of {self._cells}, about {format_duration(seconds * (self._cells - number))} left"


def rounded(pairs: float) -> int:
    """Rounds pairs per device down: to a multiple of 8, or to a whole number below 8."""
    return int(pairs) if pairs < _UNIT else int(pairs) // _UNIT * _UNIT
