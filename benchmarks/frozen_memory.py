"""Memory of a device in the stages that freeze the image tower: with its parameters in float32 on it, and as it is now.

    python -m benchmarks.frozen_memory                       parameters and optimizer state, from shapes: half a minute
    python -m benchmarks.frozen_memory --on a100:8           the whole step too, by the compiler of an A100
    python -m benchmarks.frozen_memory --on v5e:2x4 --models altclip/vit_l_14

"frozen in float32" has all frozen parameters on the devices in float32, as a CPU has them. "now" has what a step
reads, in the dtype in which it reads it; the originals are in the host's memory. The towers compute in bfloat16, and
every device has all parameters. `--on` compiles every stage twice, with rematerialisation "dots" and 64 pairs a
device, which takes minutes. It needs the compiler of the devices (the extra `plan-cuda` or `plan-tpu`) and no device.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax

from jclip.accelerators.compiler import Compiler
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import parse_place
from jclip.configs.loading import load_config
from jclip.parallel.sharding import bytes_per_device
from jclip.train.assembly import StageParts, assemble, devices_of
from jclip.train.configuration import Run
from jclip.train.planning.on_target import compile_part

MODELS = (
    "chinese_clip/vit_b_16",
    "chinese_clip/vit_l_14",
    "chinese_clip/vit_h_14",
    "altclip/vit_l_14",
    "altclip/vit_h_14_m18",
)
PAIRS = 64
"""Pairs of a device."""


def runs(name: str, devices: int) -> Iterator[Run]:
    """Yields a run of each stage of a recipe that freezes the image tower, alone."""
    recipe = load_config(name)
    for stage in recipe.stages:
        if (r".*", True) not in stage.trains:
            alone = replace(stage, batch_size=PAIRS * devices, micro_batches=1)
            yield replace(recipe, stages=(alone,), remat="dots", dtype="bfloat16")


def stage_of(run: Run, devices: Sequence[jax.Device], now: bool) -> StageParts:
    """Returns the stage, assembled as for devices with a memory of their own, or as for a CPU."""
    return assemble(run, 0, replace(devices_of(run, devices), own_memory=now))


def state(run: Run, now: bool) -> int:
    """Returns the bytes of the state that a step takes."""
    taken = stage_of(run, jax.devices("cpu")[:1], now).taken
    return bytes_per_device(taken, jax.tree.map(lambda leaf: leaf.sharding, taken))


def step(compiler: Compiler, run: Run, now: bool) -> int:
    """Returns the bytes of the compiled step on one device."""
    return compile_part(compiler, stage_of(run, compiler.devices, now)).needed


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", type=parse_place)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    options = parser.parse_args()
    what = f"step on {options.on.name}" if options.on else "state"
    print(f"| stage | {what}, frozen in float32 | now | saved |\n|:---|---:|---:|---:|")
    process = CompilerProcess(options.on) if options.on else None
    try:
        for name in options.models:
            for run in runs(name, options.on.devices if options.on else 1):
                before, now = (
                    (process.call(step, run, now) if process else state(run, now)) / 2**30 for now in (False, True)
                )
                saved = f"{before:.2f} GiB | {now:.2f} GiB | {before - now:.2f} GiB"
                print(f"| {name}, {run.stages[0].name} | {saved} |", flush=True)
    finally:
        if process:
            process.close()


if __name__ == "__main__":
    main()
