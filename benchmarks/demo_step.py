"""CPU time and compilation time of a step of each of the demo's stages, on random batches.

    jclip demo --quick                          fetches the data and trains the bundles that stages start from, once
    python -m benchmarks.demo_step              a few minutes on 2 cores

CPU time, not wall-clock time, so that other work on the machine matters little. The lowest of three rounds.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jclip.configs.demo import altclip, chinese_clip, common, english
from jclip.train import Run
from jclip.train.assembly import StageParts
from jclip.train.preparing import prepare

_STEPS, _ROUNDS = 15, 3


def main() -> None:
    """Prints a Markdown table."""
    place = common.Place(home=f"{common.HOME}/quick")
    print("| stage | CPU ms a step | CPU s to compile |\n|---|---:|---:|", flush=True)
    builders: list[Callable[[common.Place], Run]] = [english.build, altclip.build, chinese_clip.build]
    for build in builders:
        run = build(place)
        with tempfile.TemporaryDirectory() as folder:
            devices, _, parts = prepare(run, Path(folder))
        for part in parts:
            with jax.set_mesh(devices.mesh):
                step, compiling = _time(parts[0], part)
            print(f"| {run.name}, {part.stage.name} | {1000 * step:.0f} | {compiling:.1f} |", flush=True)


def _time(first: StageParts, part: StageParts) -> tuple[float, float]:
    """Returns CPU seconds of a step, and of its compilation."""
    state = first.start() if part is first else part.follow(first.start())
    draw = np.random.default_rng(0)
    batch = {}
    for name, spec in part.program.batch.items():
        length = min(part.stage.buckets, default=part.stage.context_length)
        shape = (spec.shape[0], length) if name in ("text", "student") else spec.shape
        batch[name] = draw.integers(5, 250, shape).astype(spec.dtype)
    state = part.taken_of(state)
    inputs = part.constants(), part.place(batch), jax.random.key(0)
    begun = time.process_time()
    compiled = part.compiled.lower(state, *inputs).compile()
    compiling = time.process_time() - begun
    times = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        for _ in range(_STEPS):
            state, metrics = compiled(state, *inputs)
        jax.block_until_ready(metrics)
        times.append((time.process_time() - begun) / _STEPS)
    return min(times), compiling


if __name__ == "__main__":
    main()
