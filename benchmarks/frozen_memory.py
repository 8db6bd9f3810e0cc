"""Memory of a device in the stages that freeze the image tower, with and without its frozen parameters' originals.

    python -m benchmarks.frozen_memory                  on an A100, some fifteen minutes: two compilations of each row
    python -m benchmarks.frozen_memory --on v5e:2x4     on a TPU v5e
    python -m benchmarks.frozen_memory --models altclip/vit_l_14

Needs the compiler of the devices (the extra `plan-cuda` or `plan-tpu`), and not the devices. "before" has all frozen
parameters on the devices in float32, as a CPU has them; "now" has what a step reads, as it reads it. Both are what the
compiler gives for parameters, optimizer, inputs and temporaries of the first stage, in bfloat16 with "dots"; the batch
is split over all devices, and nothing else.
"""

import argparse
from dataclasses import replace

from jclip.accelerators.compiler import Compiler
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import parse_place
from jclip.configs.loading import load_config
from jclip.train.assembly import assemble, devices_of
from jclip.train.configuration import Run
from jclip.train.planning.on_target import compile_part

ROWS = {
    "chinese_clip/vit_b_16": 128,
    "chinese_clip/vit_l_14": 64,
    "chinese_clip/vit_h_14": 32,
    "altclip/vit_l_14": 128,
    "altclip/vit_h_14_m18": 128,
}
"""Pairs of a device."""


def needed(compiler: Compiler, run: Run, before: bool) -> int:
    """Returns the bytes of the first stage's step on one device."""
    devices = devices_of(run, compiler.devices)
    devices = replace(devices, own_memory=devices.own_memory and not before)
    return compile_part(compiler, assemble(run, 0, devices)).needed


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", default="a100:8", type=parse_place)
    parser.add_argument("--models", nargs="*", choices=ROWS, default=list(ROWS))
    options = parser.parse_args()
    print(f"| first stage on {options.on.name} | pairs of a device | before | now | saved |")
    print("|:---|---:|---:|---:|---:|")
    with CompilerProcess(options.on) as process:
        for name in options.models:
            run = load_config(name)
            stage = replace(run.stages[0], batch_size=ROWS[name] * options.on.devices, micro_batches=1)
            run = replace(run, stages=(stage,), remat="dots", dtype="bfloat16")
            before, now = (process.call(needed, run, whole) / 2**30 for whole in (True, False))
            figures = f"{before:.2f} GiB | {now:.2f} GiB | {before - now:.2f} GiB"
            print(f"| {name}, {stage.name} | {ROWS[name]} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
