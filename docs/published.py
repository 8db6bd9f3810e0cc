"""Tables of docs/scaling.md about the input pipeline, and about runs that were published."""

from dataclasses import dataclass

from benchmarks.memory import ROWS
from docs.compiled import Series, Steps, series
from docs.tables import gib, table
from jclip.accelerators.targets import TARGETS
from jclip.configs.loading import load_config
from jclip.models.compute import Remat
from jclip.stages import Stage
from jclip.units import format_duration

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
REMATS: tuple[Remat, ...] = ("dots", "layers")


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
            stage = load_config(recipe).stages[index]
            found = _known(steps, recipe, stage, target.name)
            if found is None or (pairs := found.largest(8)) < 1:
                continue
            device = pairs / found.seconds(pairs, 8)
            host = device * target.host_devices
            cores = [f"{host * WORKERS / rate:,.0f}" for rate in IMAGES.values()]
            rows.append((target.name, f"{recipe} {index + 1}", f"{device:,.0f}", f"{host:,.0f}", *cores))
    sides = (f"cores, {side} pixels" for side in IMAGES)
    return table(("target", "recipe, stage", "pairs/s a device", "a host", *sides), rows)


def published_table(steps: Steps) -> str:
    """Returns the published durations beside those of the estimate."""
    rows = []
    for run in RUNS:
        stage, target = load_config(run.recipe).stages[run.stage], TARGETS[run.target]
        pairs = stage.batch_size / run.devices
        count = stage.budget.in_steps(stage.batch_size, 0)
        rate = pairs * count / (run.days * 86_400)
        found = _known(steps, run.recipe, stage, run.target)
        cells = ["-"] * 4
        if found:
            reached = rate * found.flops(pairs) / pairs
            times, links = found.times(pairs), found.links(pairs, run.devices)
            peak = FLOAT16 if run.target == "v100" else target.peak
            seconds = times.products * target.peak / peak + times.traffic + links
            days = seconds * count / 86_400
            needed = gib(found.needed(pairs, run.devices))
            cells = [f"{reached / 1e12:,.1f}", needed, f"{days:,.2g}", f"{run.days / days:,.1f}"]
        name = f"{run.recipe} {run.stage + 1}"
        rows.append((name, f"{run.devices} x {run.target}", f"{pairs:,.0f}", f"{run.days}", f"{rate:,.0f}", *cells))
    head = (
        "recipe, stage", "devices", "pairs a device", "days, published", "pairs/s a device", "TFLOP/s a device",
        "GiB, here", "days, estimated", "ratio",
    )  # fmt: skip
    return table(head, rows)


def flash_table(steps: Steps) -> str:
    """Returns cn_clip's measured seconds of a step beside the estimate."""
    rows = []
    for row in ROWS:
        recipe = f"chinese_clip/{row.recipe}"
        found = _known(steps, recipe, load_config(recipe).stages[-1], "a100")
        if found is None:
            continue
        seconds = found.seconds(row.pairs, 8)
        ratios = ", ".join(f"{each / seconds:.1f}" for each in (row.plain_seconds, row.flash_seconds))
        theirs = f"{row.plain_seconds}", f"{row.flash_seconds}"
        rows.append((recipe, f"{row.pairs:,}", *theirs, format_duration(seconds), ratios))
    head = ("recipe", "pairs a device", "cn_clip, s", "with flash attention, s", "estimate", "ratios")
    return table(head, rows)


def _known(steps: Steps, recipe: str, stage: Stage, target: str) -> Series | None:
    """Returns the steps of a stage with the least recomputation that has been compiled."""
    for remat in REMATS:
        for mesh in ("data", "fsdp"):
            found = series(steps, recipe, stage.name, target, mesh, remat)
            if found and found.accounted and len(found.steps) > 1:
                return found
    return None
