"""Plans a run without running it: stages, parameters, FLOPs, memory and time, from shapes alone."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jclip import rules
from jclip.errors import JclipError
from jclip.parallel.sharding import bytes_per_device, on_mesh
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import Devices, StageParts, assemble, open_stage
from jclip.train.configuration import Run
from jclip.train.planning.flops import count_flops


@dataclass(frozen=True)
class StagePlan:
    """Plan of one stage.

    Attributes:
      pairs: number of examples of the whole stage.
      trainable, frozen: numbers of parameters.
      groups: (paths, number of parameters, True if they train).
      flops_per_step: FLOPs of the matmuls and convolutions of a step over the global batch, backward pass included.
      flops: FLOPs of the whole stage.
      state_bytes: bytes of parameters and optimizer slots, each counted once.
      device_state_bytes: bytes of them on one device.
      device_step_bytes: other bytes of a step on one device (batch, teacher, activations, gradients), from this
        machine's compiler. None if nothing was compiled.
      step_seconds, seconds: duration of a step and of the whole stage; None if the devices' rate is unknown.
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


def plan_stages(
    run: Run,
    devices: Devices,
    tokenizer: Tokenizer | None = None,
    *,
    compiled: bool = False,
    tflops: float | None = None,
) -> list[StagePlan]:
    """Returns the plan of every stage, from shapes alone.

    Raises JclipError if the run cannot start for another reason than missing files, or the rate is not valid.

    Args:
      devices: result of `devices_of`.
      tokenizer: needed for budgets in epochs, for which the data are opened.
      compiled: compile each stage's step to measure its memory, which takes about ten seconds at full size.
      tflops: sustained rate of one device in TFLOP/s, to estimate the time.
    """
    if tflops is not None and not 0 < tflops < float("inf"):
        raise JclipError(f"a device that sustains {tflops} TFLOP/s is not possible: give a number above 0")
    parts = [assemble_shapes(run, index, devices, tokenizer) for index in range(len(run.stages))]
    return [plan_stage(part, compiled, tflops) for part in parts]


def assemble_shapes(run: Run, index: int, devices: Devices, tokenizer: Tokenizer | None) -> StageParts:
    """Returns the parts of a stage. Opens its data only to count epochs, and only with a tokenizer."""
    if tokenizer is None or run.stages[index].budget.epochs is None:
        return assemble(run, index, devices)
    return assemble(run, index, devices, open_stage(run, index, devices, tokenizer))


def plan_stage(part: StageParts, compiled: bool = False, tflops: float | None = None) -> StagePlan:
    """Returns the plan of an assembled stage; the options are those of `plan_stages`."""
    stage, state, devices = part.stage, part.state_shapes, part.mesh.size
    with jax.set_mesh(part.mesh):
        per_step = count_flops(part.step, state, part.program.constants, part.program.batch, _key())
    counts = {path: int(np.prod(shape.shape)) for path, shape in part.paths.items()}
    trainable = sum(count for path, count in counts.items() if path in part.trains)
    in_place = bytes_per_device(state, part.shardings)
    step_seconds = per_step / (devices * tflops * 1e12) if tflops else None
    return StagePlan(
        name=stage.name,
        objective=stage.objective.title,
        batch_size=stage.batch_size,
        steps=part.steps,
        learning_rate=stage.optimizer.learning_rate,
        pairs=part.steps * stage.batch_size,
        trainable=trainable,
        frozen=sum(counts.values()) - trainable,
        groups=tuple(rules.rows({path: path in part.trains for path in part.paths}, part.paths)),
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
    """Returns the bytes of the compiled step on one device, including the state, whose memory is donated."""
    memory = lower_step(part).compile().memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(used + memory.temp_size_in_bytes)


def lower_step(part: StageParts) -> Any:
    """Returns the lowered step of an assembled stage, which has the method `compile`."""
    state = on_mesh(part.state_shapes, part.shardings)
    with jax.set_mesh(part.mesh):
        return part.compiled.lower(state, part.program.constants, part.program.batch, _key())


def argument_bytes(part: StageParts) -> int:
    """Returns the bytes of a step's arguments on one device: state, constants and batch."""
    arguments = (on_mesh(part.state_shapes, part.shardings), part.program.constants, part.program.batch)
    return bytes_per_device(arguments, jax.tree.map(lambda leaf: leaf.sharding, arguments))


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
