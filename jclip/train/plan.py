"""What a run would do, without doing it: stages, parameters, arithmetic and memory, from shapes alone."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jclip import rules
from jclip.data.text import Tokenizer
from jclip.parallel.mesh import make_mesh
from jclip.parallel.sharding import check_batch
from jclip.train.assembly import StageParts
from jclip.train.flops import count_flops
from jclip.train.run import Run, check


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
      state_bytes: parameters, optimizer slots and gradients together, before sharding.
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
    state_bytes: int


def plan(run: Run, tokenizer: Tokenizer | None = None) -> list[StagePlan]:
    """The plan of every stage, from shapes alone.

    Args:
      run: the configuration.
      tokenizer: needed where a budget counts epochs, for then the data is opened to count its examples.

    Raises:
      JclipError: whatever would stop the run before its first step.
    """
    check(run)
    mesh = make_mesh(run.mesh)
    for stage in run.stages:
        check_batch(stage.batch_size, mesh)
    return [_plan_stage(StageParts(run, index, mesh, tokenizer)) for index in range(len(run.stages))]


def _plan_stage(part: StageParts) -> StagePlan:
    stage, state = part.stage, part.state_shapes()
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.set_mesh(part.mesh):
        per_step = count_flops(part.step, state, part.constants, part.batch_shapes(), key)
    counts = {path: int(np.prod(shape.shape)) for path, shape in part.paths.items()}
    trainable = sum(count for path, count in counts.items() if path in part.chosen)
    gradients = _bytes(state.trainable)
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
        state_bytes=_bytes(state) + gradients,
    )


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
