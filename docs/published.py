"""Tables of docs/scaling.md about the input pipeline, and about runs that were published."""

from dataclasses import dataclass

from benchmarks.memory import ROWS, Row
from docs.cells import DEVICES, Cell
from docs.compiled import Series, Steps
from docs.tables import gib, table
from jclip.accelerators.targets import TARGETS
from jclip.configs.loading import load_config

IMAGES = {224: 828, 500: 415, 640: 307}
"""Images/s that two worker processes decode and augment, by longer side in pixels: benchmarks/RESULTS.md."""
WORKERS = 2
FED = (
    ("chinese_clip/rn50", 1),
    ("chinese_clip/vit_b_16", 0),
    ("chinese_clip/vit_b_16", 1),
    ("chinese_clip/vit_l_14", 1),
)
"""Recipes and stages whose input is calculated."""
FLOAT16 = 125e12
"""FLOP/s of a V100's matrix units, which multiply only float16 (data sheet)."""


@dataclass(frozen=True)
class Published:
    """Stage of a run of Chinese-CLIP's paper (Yang et al. 2022, section 2.2 and table 8).

    Attributes:
      recipe, stage: the recipe that describes it, and the index of the stage.
      target, devices: devices on which it ran.
      days: its published duration.
    """

    recipe: str
    stage: int
    target: str
    devices: int
    days: float


RUNS = (
    Published("chinese_clip/rn50", 0, "v100", 64, 1.6),
    Published("chinese_clip/rn50", 1, "v100", 64, 5.8),
    Published("chinese_clip/vit_b_16", 0, "v100", 128, 4.5),
    Published("chinese_clip/vit_b_16", 1, "v100", 128, 3.0),
    Published("chinese_clip/vit_l_14", 0, "v100", 128, 11.5),
    Published("chinese_clip/vit_l_14", 1, "v100", 128, 8.0),
    Published("chinese_clip/vit_l_14_336", 0, "a100", 128, 0.7),
    Published("chinese_clip/vit_h_14", 0, "a100", 184, 3.8),
    Published("chinese_clip/vit_h_14", 1, "a100", 184, 2.2),
)


def input_table(steps: Steps) -> str:
    """Returns the images that a host must deliver, and the cores that this takes, for its largest batch."""
    rows = []
    for target in TARGETS.values():
        for recipe, index in FED:
            found = _known(steps, recipe, index, target.name)
            if found is None or (pairs := found.largest(DEVICES)) < 1:
                continue
            device = pairs / found.seconds(pairs, DEVICES)
            host = device * target.host_devices
            cores = [f"{host * WORKERS / rate:,.0f}" for rate in IMAGES.values()]
            rows.append((target.name, f"{recipe} {index + 1}", f"{device:,.0f}", f"{host:,.0f}", *cores))
    sides = (f"cores, {side} pixels" for side in IMAGES)
    return table(("target", "recipe, stage", "pairs/s a device", "a host", *sides), rows)


def published_table(steps: Steps) -> str:
    """Returns the published durations beside those of the estimate."""
    rows = []
    for run in RUNS:
        stage = load_config(run.recipe).stages[run.stage]
        pairs = stage.batch_size / run.devices
        count = stage.budget.in_steps(stage.batch_size, 0)
        rate = pairs * count / (run.days * 86_400)
        cells = ["-"] * 4
        if found := _known(steps, run.recipe, run.stage, run.target):
            reached = rate * found.flops(pairs) / pairs
            days = _days(run, found)
            needed = gib(found.needed(pairs, run.devices))
            cells = [f"{reached / 1e12:,.1f}", needed, f"{days:,.2g}", f"{run.days / days:,.1f}"]
        name = f"{run.recipe} {run.stage + 1}"
        rows.append((name, f"{run.devices} x {run.target}", f"{pairs:,.0f}", f"{run.days}", f"{rate:,.0f}", *cells))
    head = (
        "recipe, stage", "devices", "pairs a device", "days, published", "pairs/s a device", "TFLOP/s a device",
        "GiB, here", "days, estimated", "ratio",
    )  # fmt: skip
    return table(head, rows)


def conclusion(steps: Steps) -> str:
    """Returns a sentence with the memory that the published runs' steps leave, and the range of the ratios."""
    spare, ratios = [], []
    for run in RUNS:
        if found := _known(steps, run.recipe, run.stage, run.target):
            stage = load_config(run.recipe).stages[run.stage]
            pairs = stage.batch_size / run.devices
            spare.append(found.target.memory - found.needed(pairs, run.devices))
            ratios.append(run.days / _days(run, found))
    if not ratios:
        return ""
    return (
        f"{len(ratios)} of the {len(RUNS)} stages have an estimate. Their steps leave {gib(min(spare))} GiB or more of "
        f"a device's memory, and the published times are {min(ratios):.1f} to {max(ratios):.1f} times the estimates.\n"
    )


def _days(run: Published, found: Series) -> float:
    """Returns the estimated days of a stage."""
    stage = load_config(run.recipe).stages[run.stage]
    seconds = _seconds(found, stage.batch_size / run.devices, run.devices)
    return seconds * stage.budget.in_steps(stage.batch_size, 0) / 86_400


def _seconds(found: Series, pairs: float, devices: int) -> float:
    """Returns the estimated seconds of a step; on V100s a lower bound, with products at the rate of float16.

    At that rate, the memory traffic of some instructions takes longer than their products, which it does not count.
    """
    if found.target.name != "v100":
        return found.seconds(pairs, devices)
    times = found.times(pairs)
    return times.products * found.target.peak / FLOAT16 + times.traffic + found.links(pairs, devices)


@dataclass(frozen=True)
class FlashRow:
    """Row of cn_clip's table, and the estimated seconds of a step with the same batch."""

    row: Row
    seconds: float

    @property
    def ratios(self) -> tuple[float, float]:
        """The measured seconds over the estimate, without and with flash attention."""
        return self.row.plain_seconds / self.seconds, self.row.flash_seconds / self.seconds


def flash_rows(steps: Steps) -> list[FlashRow]:
    """Returns the rows of cn_clip's table whose steps have been compiled."""
    rows = [(row, _known(steps, f"chinese_clip/{row.recipe}", -1, "a100")) for row in ROWS]
    return [FlashRow(row, found.seconds(row.pairs, 8)) for row, found in rows if found]


def flash_table(steps: Steps) -> str:
    """Returns cn_clip's measured seconds of a step beside the estimate."""
    rows = []
    for each in flash_rows(steps):
        measured = f"{each.row.plain_seconds}", f"{each.row.flash_seconds}"
        ratios = ", ".join(f"{ratio:.1f}" for ratio in each.ratios)
        name, pairs = f"chinese_clip/{each.row.recipe}", f"{each.row.pairs:,}"
        rows.append((name, pairs, *measured, f"{each.seconds:.2f}", ratios))
    head = ("recipe", "pairs a device", "cn_clip, s", "with flash attention, s", "estimate, s", "ratios")
    return table(head, rows)


def _known(steps: Steps, recipe: str, index: int, target: str) -> Series | None:
    """Returns the steps of a stage, with the rematerialisation "dots"; None if estimates for them are not possible."""
    found = Cell(recipe, load_config(recipe).stages[index], TARGETS[target], "dots").line(steps)
    return found if found and found.accounted else None
