"""Plans a run without running it: stages, parameters, FLOPs, memory and time, from shapes alone."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jclip import rules
from jclip.accelerators.program_memory import program_bytes
from jclip.errors import JclipError
from jclip.parallel.sharding import bytes_per_device
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import Devices, StageParts, assemble, open_stage
from jclip.train.configuration import RematChoice, Run
from jclip.train.planning.flops import count_flops
from jclip.train.planning.remat import ChosenRemat, choose_remat


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
      device_state_bytes: bytes of them on one device, as a step takes them.
      host_bytes: bytes of the frozen parameters, each counted once, if they are in the hosts' memory during the stage;
        otherwise 0. A host has those of its devices.
      remat: activations that the backward pass recomputes; "auto" if the run leaves the choice and nothing was
        compiled.
      remat_reason: reason of that choice.
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
    host_bytes: int
    remat: RematChoice
    remat_reason: str
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
    memory: int | None = None,
) -> list[StagePlan]:
    """Returns the plan of every stage, from shapes alone.

    Raises JclipError if the run cannot start for another reason than missing files, or the rate is not valid.

    Args:
      devices: result of `devices_of`.
      tokenizer: needed for budgets in epochs, for which the data are opened.
      compiled: compile each stage's step to measure its memory, which takes about ten seconds at full size.
      tflops: sustained rate of one device in TFLOP/s, to estimate the time.
      memory: bytes of one device, to choose `remat` in a run with "auto"; None if unknown.
    """
    if tflops is not None and not 0 < tflops < float("inf"):
        raise JclipError(f"a device that sustains {tflops} TFLOP/s is not possible: give a number above 0")
    parts = [assemble_shapes(run, index, devices, tokenizer) for index in range(len(run.stages))]
    choices = [choose_remat(part, memory, device_bytes) if compiled else ChosenRemat(part) for part in parts]
    return [plan_stage(choice, compiled, tflops) for choice in choices]


def assemble_shapes(run: Run, index: int, devices: Devices, tokenizer: Tokenizer | None) -> StageParts:
    """Returns the parts of a stage. Opens its data only to count epochs, and only with a tokenizer."""
    if tokenizer is None or run.stages[index].budget.epochs is None:
        return assemble(run, index, devices)
    return assemble(run, index, devices, open_stage(run, index, devices, tokenizer))


def plan_stage(choice: ChosenRemat, compiled: bool = False, tflops: float | None = None) -> StagePlan:
    """Returns the plan of an assembled stage; the options are those of `plan_stages`."""
    part = choice.part
    stage, state, devices = part.stage, part.state_shapes, part.mesh.size
    taken = part.taken
    with jax.set_mesh(part.mesh):
        per_step = count_flops(part.step, state, part.program.constants, part.program.batch, _key())
    counts = {path: int(np.prod(shape.shape)) for path, shape in part.paths.items()}
    trainable = sum(count for path, count in counts.items() if path in part.trains)
    in_place = _bytes_on_one(taken)
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
        host_bytes=_bytes(state.frozen) if part.devices.own_memory else 0,
        remat=choice.remat,
        remat_reason=choice.reason,
        device_step_bytes=device_bytes(part) - in_place if compiled else None,
        step_seconds=step_seconds,
        seconds=None if step_seconds is None else step_seconds * part.steps,
    )


def device_bytes(part: StageParts) -> int:
    """Returns the bytes that a stage needs on one device: the larger of its compiled step's and `whole_state_bytes`."""
    with jax.set_mesh(part.mesh):
        program = part.program_for(part.taken, part.program.constants, part.program.batch, _key())
    return max(program_bytes(program.memory_analysis()), whole_state_bytes(part))


def whole_state_bytes(part: StageParts) -> int:
    """Returns the bytes on one device while the state is saved or evaluated: the whole state, and what a step takes.

    0 if the frozen parameters are on the devices at all times: a step then needs more.
    """
    if not part.devices.own_memory:
        return 0
    return bytes_per_device(part.state_shapes, part.shardings) + _bytes_on_one((part.program.constants, part.read))


def lower_step(part: StageParts) -> Any:
    """Returns the lowered step of an assembled stage, which has the method `compile`."""
    with jax.set_mesh(part.mesh):
        return part.compiled.lower(part.taken, part.program.constants, part.program.batch, _key())


def argument_bytes(part: StageParts) -> int:
    """Returns the bytes of a step's arguments on one device: state, constants and batch."""
    return _bytes_on_one((part.taken, part.program.constants, part.program.batch))


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _bytes_on_one(tree: Any) -> int:
    """Returns the bytes of shapes with shardings on one device."""
    return bytes_per_device(tree, jax.tree.map(lambda leaf: leaf.sharding, tree))


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
