"""Memory of one A100-80GB in a training step of Chinese-CLIP, beside what cn_clip publishes for the same batches.

    python -m benchmarks.memory --remat dots    the table of RESULTS.md, some minutes: one compilation of each model
    python -m benchmarks.memory                 with "none" and "dots"
    python -m benchmarks.memory --models RN50   one row

It needs NVIDIA's compiler (the extra `plan-cuda`) and no GPU.

jclip's figure is the compiler's: parameters, optimizer, inputs and temporaries of the last stage, in which both towers
train, in bfloat16, on 8 devices that split the batch and replicate the parameters. cn_clip's figures are measurements
by its authors, in float16 on 8 A100-80GB, with and without flash attention: flash_attention.md in its repository
(github.com/OFA-Sys/Chinese-CLIP). A GB is 10^9 bytes.
"""

import argparse
from dataclasses import dataclass, replace
from typing import get_args

from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import parse_place
from jclip.configs.loading import load_config
from jclip.models.compute import Remat
from jclip.train.planning.on_target import compile_stage

_PLACE = parse_place("a100:8")
_MEASURED: tuple[Remat, ...] = ("none", "dots")


@dataclass(frozen=True)
class Row:
    """Published row of cn_clip's table.

    Attributes:
      model: cn_clip's name of the model.
      recipe: jclip's recipe of it.
      pairs: pairs per device.
      plain, flash: GB of one device, without and with flash attention.
      plain_seconds, flash_seconds: seconds of a step.
    """

    model: str
    recipe: str
    pairs: int
    plain: int
    flash: int
    plain_seconds: float
    flash_seconds: float


ROWS = (
    Row("RN50", "rn50", 1200, 79, 75, 1.710, 1.680),
    Row("ViT-B/16", "vit_b_16", 450, 80, 56, 1.477, 0.960),
    Row("ViT-L/14", "vit_l_14", 128, 77, 50, 1.293, 0.785),
    Row("ViT-L/14@336", "vit_l_14_336", 40, 78, 37, 1.397, 0.587),
    Row("ViT-H/14", "vit_h_14", 64, 76, 57, 1.265, 0.845),
)


def needed(process: CompilerProcess, row: Row, remat: Remat) -> int:
    """Returns the bytes that jclip's step needs on one device."""
    run = load_config(f"chinese_clip/{row.recipe}")
    stage = replace(run.stages[-1], batch_size=row.pairs * _PLACE.devices, micro_batches=1)
    run = replace(run, stages=(stage,), remat=remat, dtype="bfloat16")
    return int(process.call(compile_stage, run, 0).needed)


def main() -> None:
    """Prints a table."""
    names = [row.model for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=names, default=names)
    parser.add_argument("--remat", nargs="*", choices=get_args(Remat), default=_MEASURED)
    options = parser.parse_args()
    ours = [f'jclip, "{remat}"' for remat in options.remat]
    print("| model | pairs per device | cn_clip | with flash attention |", " | ".join(ours), "| of flash attention |")
    print("|:---|" + "---:|" * (len(ours) + 4))
    with CompilerProcess(_PLACE) as process:
        for row in (row for row in ROWS if row.model in options.models):
            taken = [needed(process, row, remat) / 1e9 for remat in options.remat]
            figures = " | ".join(f"{each:.1f} GB" for each in taken)
            shares = ", ".join(f"{each / row.flash:.2f}" for each in taken)
            print(f"| {row.model} | {row.pairs} | {row.plain} GB | {row.flash} GB | {figures} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
