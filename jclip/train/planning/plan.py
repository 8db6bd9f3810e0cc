"""What a run would do, without doing it: stages, parameters, arithmetic, memory and time, from shapes alone."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jclip import rules
from jclip.errors import JclipError
from jclip.parallel.sharding import bytes_per_device
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import StageParts, check_and_mesh, on_mesh
from jclip.train.planning.flops import count_flops
from jclip.train.run import Run


@dataclass(frozen=True)
class StagePlan:
    """The facts of one stage.

    Attributes:
      name, objective, batch_size, steps, learning_rate: as configured.
      pairs: examples seen in the whole stage.
      trainable, frozen: parameter counts.
      groups: (paths, parameters, whether they train).
      flops_per_step: matmul and convolution arithmetic of one optimizer step over the global batch, backward included.
      flops: of the whole stage.
      devices: of the mesh.
      state_bytes: parameters and optimizer slots over all, before they are split or copied.
      device_state_bytes: what one device holds of them, by the sharding rules.
      device_step_bytes: what a step takes on one device beside them, by the compiler of this machine's backend: batch,
        teacher, activations, gradients. None where nothing was compiled.
      step_seconds, seconds: of a step, and of the whole stage, at the rate that was given; None without one.
    """

    name: str
    objective: str
    batch_size: int
    steps: int
    learning_rate: float
    pairs: int
    trainable: int
    frozen: int
    groups: tuple[tuple[str, int, bool], ...]
    flops_per_step: int
    flops: int
    devices: int
    state_bytes: int
    device_state_bytes: int
    device_step_bytes: int | None
    step_seconds: float | None
    seconds: float | None


def plan(
    run: Run, tokenizer: Tokenizer | None = None, *, compiled: bool = False, tflops: float | None = None
) -> list[StagePlan]:
    """The plan of every stage, from shapes alone.

    Args:
      run: the configuration.
      tokenizer: needed where a budget counts epochs, for then the data is opened to count its examples.
      compiled: compile each stage's step, to know its memory: some ten seconds a stage at full size.
      tflops: what one device sustains, in 10^12 multiplications and additions a second, to estimate the time.

    Raises:
      JclipError: whatever would stop the run before its first step, but for what lies in bundles, tokenizers and data,
        which need not be here; or a rate that is none.
    """
    if tflops is not None and not 0 < tflops < float("inf"):
        raise JclipError(f"a device that sustains {tflops} TFLOP/s is not possible: give a number above 0")
    mesh = check_and_mesh(run)
    parts = [StageParts(run, index, mesh, tokenizer) for index in range(len(run.stages))]
    return [_plan_stage(part, compiled, tflops) for part in parts]


def _plan_stage(part: StageParts, compiled: bool, tflops: float | None) -> StagePlan:
    stage, state, devices = part.stage, part.state_shapes, part.mesh.size
    with jax.set_mesh(part.mesh):
        per_step = count_flops(part.step, state, part.constant_shapes, part.batch_shapes(), _key())
    counts = {path: int(np.prod(shape.shape)) for path, shape in part.paths.items()}
    trainable = sum(count for path, count in counts.items() if path in part.chosen)
    in_place = bytes_per_device(state, part.shardings)
    step_seconds = per_step / (devices * tflops * 1e12) if tflops else None
    return StagePlan(
        name=stage.name,
        objective=stage.objective,
        batch_size=stage.batch_size,
        steps=part.steps,
        learning_rate=stage.optimizer.learning_rate,
        pairs=part.steps * stage.batch_size,
        trainable=trainable,
        frozen=sum(counts.values()) - trainable,
        groups=tuple(rules.rows({path: path in part.chosen for path in part.paths}, part.paths)),
        flops_per_step=per_step,
        flops=per_step * part.steps,
        devices=devices,
        state_bytes=_bytes(state),
        device_state_bytes=in_place,
        device_step_bytes=device_bytes(part) - in_place if compiled else None,
        step_seconds=step_seconds,
        seconds=None if step_seconds is None else step_seconds * part.steps,
    )


def device_bytes(part: StageParts) -> int:
    """What the compiled step takes on one device, the state included, which the next state replaces where it lies."""
    state = on_mesh(part.state_shapes, part.shardings)
    with jax.set_mesh(part.mesh):
        lowered = part.compiled.lower(state, part.constant_shapes, part.batch_shapes(), _key())
        memory = lowered.compile().memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(used + memory.temp_size_in_bytes)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
