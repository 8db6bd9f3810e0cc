"""Model FLOPs of a stage's step, without those of recomputation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jclip.train.assembly import StageParts
from jclip.train.planning.flops import count_flops
from jclip.train.step import make_step


class Arithmetic:
    """FLOPs of a step, counted once per batch shape, without recomputation by remat and micro-batches."""

    def __init__(self, part: StageParts):
        stage, towers = replace(part.stage, micro_batches=1), part.context.towers
        towers = towers.clone(compute=replace(towers.compute, remat="none"))
        self._program = stage.objective.program(replace(part.context, stage=stage, towers=towers))
        self._step = make_step(self._program.loss, part.optimizer)
        self._part = part
        self._known: dict[tuple[Any, ...], int] = {}

    def __call__(self, batch: Mapping[str, np.ndarray]) -> int:
        """Returns the FLOPs of a step over all devices, from this process's rows of the batch."""
        shapes = tuple(sorted((name, rows.shape[1:]) for name, rows in batch.items()))
        if shapes not in self._known:
            size, full = self._part.stage.batch_size, self._program.batch
            whole = {name: jax.ShapeDtypeStruct((size, *shape), full[name].dtype) for name, shape in shapes}
            key = jax.eval_shape(lambda: jax.random.key(0))
            self._known[shapes] = count_flops(self._step, self._part.state_shapes, self._program.constants, whole, key)
        return self._known[shapes]
